//! The generated pages: both manual pages in mdoc(7), from the prose in `man/*.in` and the table of options, and the
//! options table of the README in Markdown. `tests/docs.rs` writes them and compares; the program itself does not use
//! this. Nothing here reads or writes a file.

use crate::help::wrapped;
use crate::options::{self, GLOBAL, Opt, Role, TOOLS, Tool};
use std::fmt::Write;

/// How wide a line of the sources is.
const WIDTH: usize = 78;

/// A page from its prose. A line of the prose that is one of these marks is replaced: `@GLOBAL@` and `@ROLES@` by the
/// options as a command line has them, `@TOOLS@` by the tools, `@SECTIONS@` by the sections of a file.
#[must_use]
pub fn page(prose: &str) -> String {
    let mut out =
        String::from(".\\\" Generated from the table of options and the .in file beside; do not edit.\n");
    for line in prose.lines() {
        match line {
            "@GLOBAL@" => options_list(&mut out, GLOBAL.options),
            "@ROLES@" => options::roles().iter().for_each(|r| role(&mut out, r)),
            "@TOOLS@" => TOOLS.iter().for_each(|t| tool(&mut out, t)),
            "@SECTIONS@" => options::roles().iter().for_each(|r| section(&mut out, r)),
            prose => out.extend([prose, "\n"]),
        }
    }
    out
}

/// Every option of every role as a Markdown table.
#[must_use]
pub fn table() -> String {
    let mut out = String::from("| role | option | default | what it does |\n| --- | --- | --- | --- |\n");
    for role in [&GLOBAL].into_iter().chain(options::roles().iter().copied()) {
        let name = if role.name.is_empty() { "(global)" } else { role.name };
        for opt in role.options {
            let option =
                if opt.is_flag() { opt.name.to_owned() } else { format!("{} {}", opt.name, opt.arg) };
            let option = option.replace('|', "\\|");
            let default = if opt.default.is_empty() { String::new() } else { format!("`{}`", opt.default) };
            let repeat = if opt.repeat { " May be repeated." } else { "" };
            let _ = writeln!(out, "| {name} | `--{option}` | {default} | {}{repeat} |", opt.help);
        }
    }
    out
}

fn role(out: &mut String, role: &Role) {
    let _ = writeln!(out, ".Ss {}", role.name);
    for (number, paragraph) in role.about.split("\n\n").enumerate() {
        if number > 0 {
            out.push_str(".Pp\n");
        }
        text(out, paragraph);
    }
    options_list(out, role.options);
}

fn tool(out: &mut String, tool: &Tool) {
    let _ = write!(out, ".It Ic {}", tool.role.name);
    for opt in tool.role.options {
        let _ = write!(out, " Oo Fl -{}{} Oc", opt.name, argument(opt));
    }
    if !tool.operands.is_empty() {
        let _ = write!(out, " Ar \"{}\"", tool.operands);
    }
    out.push('\n');
    text(out, &sentence(tool.role.summary));
    if !tool.role.options.is_empty() {
        options_list(out, tool.role.options);
    }
}

fn options_list(out: &mut String, rows: &[Opt]) {
    out.push_str(".Bl -tag -width Ds\n");
    for opt in rows {
        let _ = writeln!(out, ".It Fl -{}{}", opt.name, argument(opt));
        text(out, opt.help);
        if opt.repeat {
            out.push_str("May be repeated.\n");
        }
        if !opt.default.is_empty() {
            let _ = writeln!(out, "Default:\n.Ql {} .", escaped(opt.default));
        }
    }
    out.push_str(".El\n");
}

/// A role's options in short, as the lines of a section.
fn section(out: &mut String, role: &Role) {
    let _ = writeln!(out, ".Ss [{}]", role.name);
    text(out, &sentence(role.summary));
    out.push_str(".Bl -column -compact \"max-sessions-per-source\" \"tcp:HOST:PORT|http://\"\n");
    for opt in role.options {
        let argument = if opt.is_flag() { String::new() } else { format!(" Ar {}", opt.arg) };
        let default = match (opt.default, opt.repeat) {
            (_, true) => "repeatable".to_owned(),
            ("", false) => String::new(),
            // A long one may be broken behind a colon: there is no room for it in one piece.
            (default, false) => escaped(default).replace(':', ":\\:"),
        };
        let line = format!(".It Cm {} Ta{argument} Ta {default}", opt.name);
        out.extend([line.trim_end(), "\n"]);
    }
    out.push_str(".El\n");
}

fn argument(opt: &Opt) -> String {
    if opt.is_flag() { String::new() } else { format!(" Ar {}", opt.arg) }
}

/// A summary as a sentence.
fn sentence(summary: &str) -> String {
    let mut sentence = format!("{summary}.");
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    sentence
}

/// Plain text, a sentence to a line at least, as mdoc(7) asks for.
fn text(out: &mut String, plain: &str) {
    for sentence in plain.split_inclusive(". ") {
        for line in wrapped(&escaped(sentence), 0, WIDTH).lines() {
            if line.starts_with(['.', '\'']) {
                out.push_str("\\&");
            }
            out.extend([line, "\n"]);
        }
    }
}

/// `plain` without what roff would take for its own: escapes, and dashes that are typed.
fn escaped(plain: &str) -> String {
    plain.replace('\\', "\\e").replace("--", "\\-\\-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_ends_in_a_blank() {
        assert!(page("@GLOBAL@\n@ROLES@\n@TOOLS@\n@SECTIONS@\n").lines().all(|line| line == line.trim_end()));
    }

    #[test]
    fn text_is_safe_roff() {
        let mut out = String::new();
        text(&mut out, "One \\ two. '.x' with --check. End.");
        assert_eq!(out, "One \\e two.\n\\&'.x' with \\-\\-check.\nEnd.\n");
    }
}
