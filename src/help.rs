//! The help texts, made from the table of options. Nothing here prints.

use crate::config::{Error, Shown};
use crate::options::{self, GLOBAL, Opt, Role, Story, TOOLS, Tool};
use std::fmt::Write;

/// The commands to begin with, as examples; a role that this program was built without is left out.
const FIRST: &[(&str, &str)] = &[
    ("demo", "demo"),
    ("announce", "announce --address LB --advertise http://:8080 --secret-file FILE"),
    ("listen", "listen --secret-file FILE + haproxy --socket PATH --backend NAME"),
    ("status", "status"),
];

/// What the program can do, on one line.
const PROMISE: &str = "beacond: machines make themselves known, and reachable";

/// What `beacond` alone prints.
#[must_use]
pub fn overview() -> String {
    let mut out = format!("{PROMISE}\n\n");
    for (name, example) in FIRST {
        if let Some(summary) = summary(name) {
            let _ = writeln!(out, "  beacond {example}\n      {summary}");
        }
    }
    let stories: Vec<&str> = stories().map(|(name, _)| name).collect();
    let _ = writeln!(out, "\nmore: beacond help {}|ROLE", stories.join("|"));
    out
}

/// What `beacond help TOPIC` prints: a role, a story or a tool; all of them in short without a topic.
///
/// # Errors
/// A topic that does not exist.
pub fn topic(topic: Option<&str>) -> Result<String, Error> {
    let Some(topic) = topic else { return Ok(everything()) };
    if let Some(role) = options::role(topic) {
        return Ok(role_help(role));
    }
    if let Some(tool) = TOOLS.iter().find(|t| t.role.name == topic) {
        return Ok(tool_help(tool));
    }
    if let Some((_, story)) = stories().find(|(name, _)| *name == topic) {
        return Ok(story_help(story));
    }
    let names = options::roles().iter().map(|r| r.name).chain(stories().map(|(name, _)| name));
    let names: Vec<&str> = names.chain(TOOLS.iter().map(|t| t.role.name)).collect();
    Err(Error::text(format!("help: '{}': wanted one of {}", Shown(topic), names.join(", "))))
}

/// What a bad command line is answered with, behind the error.
pub const HINT: &str = "try: beacond help";

/// `text` in lines of at most `width` columns, each behind `indent` blanks.
#[must_use]
pub fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_ascii_whitespace() {
        if column > 0 && column + 1 + word.len() <= width {
            out.push(' ');
            column += 1;
        } else {
            if column > 0 {
                out.push('\n');
            }
            let _ = write!(out, "{:indent$}", "");
            column = indent;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
    out
}

/// The stories that have a role in this program.
fn stories() -> impl Iterator<Item = (&'static str, Story)> {
    let all = [("found", Story::Found), ("reached", Story::Reached)];
    all.into_iter().filter(|(_, story)| options::roles().iter().any(|r| r.story == *story))
}

fn summary(name: &str) -> Option<&'static str> {
    let tool = || TOOLS.iter().find(|t| t.role.name == name).map(|t| t.role.summary);
    options::role(name).map(|r| r.summary).or_else(tool)
}

fn everything() -> String {
    let mut out = format!(
        "{PROMISE}\n\n\
         usage: beacond [GLOBAL]... ROLE [--option value]... [+ ROLE ...]...\n       \
         beacond [GLOBAL]... -c FILE\n       \
         beacond TOOL [--option value]... [OPERAND]...\n\nroles:\n"
    );
    for role in options::roles() {
        let _ = writeln!(out, "  {:<12} {}", role.name, role.summary);
    }
    out.push_str("\ntools:\n");
    for tool in TOOLS {
        let _ = writeln!(out, "  {:<12} {}", tool.role.name, tool.role.summary);
    }
    out.push_str("\nglobal options:\n");
    out.push_str("  -c, --config FILE\n      Read roles and options from this file.\n");
    out.push_str("  -h, --help\n      Print this text.\n");
    out.push_str("  -V, --version\n      Print the version.\n");
    rows(&mut out, GLOBAL.options);
    out
}

fn role_help(role: &Role) -> String {
    let mut out = format!("usage: beacond {} [--option value]...\n\n", role.name);
    for paragraph in role.about.split("\n\n") {
        out.push_str(&wrapped(paragraph, 0, 79));
        out.push('\n');
    }
    out.push_str("options:\n");
    rows(&mut out, role.options);
    out
}

fn tool_help(tool: &Tool) -> String {
    let options = if tool.role.options.is_empty() { "" } else { " [--option value]..." };
    let operands = if tool.operands.is_empty() { String::new() } else { format!(" {}", tool.operands) };
    let mut out = format!("usage: beacond {}{options}{operands}\n\n{}\n", tool.role.name, tool.role.summary);
    if !tool.role.options.is_empty() {
        out.push_str("\noptions:\n");
        rows(&mut out, tool.role.options);
    }
    out
}

fn story_help(story: Story) -> String {
    let mut out = match story {
        Story::Reached => "Machines that cannot reach each other are reached.\n\n".to_owned(),
        _ => wrapped(
            "Backends are found: each announces itself, and the load balancer you already run follows, or the \
             built-in proxy does. Beside the balancer:",
            0,
            79,
        ),
    };
    if story == Story::Found {
        out.push_str(
            "\n  beacond keygen secret > secret; chmod 600 secret\n  \
             beacond listen --secret-file secret + haproxy --socket PATH --backend NAME\n\n\
             Or without another balancer:\n\n  \
             beacond listen --listen :5555 --secret-file secret + proxy --listen :443\n\n\
             On each backend, with the same secret:\n\n  \
             beacond announce --address LB --advertise http://:8080 --secret-file secret\n\n\
             Roles:\n",
        );
    }
    for role in options::roles().iter().filter(|r| r.story == story) {
        let _ = writeln!(out, "  {:<12} {}", role.name, role.summary);
    }
    out.push_str("\nmore: beacond help ROLE\n");
    out
}

fn rows(out: &mut String, rows: &[Opt]) {
    for opt in rows {
        let blank = if opt.is_flag() { "" } else { " " };
        let _ = writeln!(out, "  --{}{blank}{}{}", opt.name, opt.arg, facts(opt));
        out.push_str(&wrapped(opt.help, 6, 79));
    }
}

/// The default and whether an option may be repeated, in brackets.
fn facts(opt: &Opt) -> String {
    match (opt.default, opt.repeat) {
        ("", false) => String::new(),
        ("", true) => "  (may be repeated)".to_owned(),
        (default, _) => format!("  (default: {default})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_fits_a_terminal_and_names_what_exists() {
        let names = options::roles().iter().map(|r| r.name).chain(TOOLS.iter().map(|t| t.role.name));
        let topics = names.chain(["found"]).map(|name| topic(Some(name)).unwrap());
        for text in topics.chain([overview(), everything()]) {
            for line in text.lines().filter(|l| !l.starts_with("  --")) {
                assert!(line.len() < 80, "{line}");
            }
            assert!(text.ends_with('\n') && text.is_ascii());
        }
        assert!(
            topic(Some("nothing"))
                .unwrap_err()
                .message
                .starts_with("help: 'nothing': wanted one of announce")
        );
    }

    #[test]
    fn wraps() {
        assert_eq!(wrapped("a bb  ccc\ndddd", 2, 7), "  a bb\n  ccc\n  dddd\n");
    }
}
