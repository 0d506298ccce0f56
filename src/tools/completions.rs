//! The tool `completions`: a script by which a shell completes beacond's command line, made from the table of options.

use crate::config::Error;
use crate::config::Shown;
use crate::options::{self, GLOBAL, Opt, TOOLS};
use crate::sorted::sort;
use std::fmt::Write;

/// The script for `shell`.
///
/// # Errors
/// A shell there is no script for.
pub fn script(shell: &str) -> Result<String, Error> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(format!("#compdef beacond\nautoload -U +X bashcompinit && bashcompinit\n{}", bash())),
        _ => Err(Error::text(format!("completions: '{}': wanted bash or zsh", Shown(shell)))),
    }
}

fn bash() -> String {
    let roles = names(options::roles().iter().map(|r| r.name));
    let tools = names(TOOLS.iter().map(|t| t.role.name));
    let global = format!("{} -c -h -V", long(GLOBAL.options));
    let commands = names(options::roles().iter().map(|r| r.name).chain(TOOLS.iter().map(|t| t.role.name)));
    let mut out = format!(
        "_beacond() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} role= words= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case $role:${{COMP_WORDS[i]}} in
            *:+) role=+ ;;
            {})
                role=${{COMP_WORDS[i]}} ;;
        esac
    done
    case $prev in
        {}) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;
    esac
    case $role in
        '') words='{roles} {tools} {global}' ;;
        +) words='{roles}' ;;
        help) words='{commands}' ;;
        completions) words='bash zsh' ;;
",
        openings(&commands),
        file_options(),
    );
    for role in options::roles() {
        let _ = writeln!(out, "        {}) words='{} +' ;;", role.name, long(role.options));
    }
    for tool in TOOLS.iter().filter(|t| t.takes_roles()) {
        let own = long(tool.role.options);
        let _ = writeln!(out, "        {}) words='{roles} {own} {global}' ;;", tool.role.name);
    }
    for tool in TOOLS.iter().filter(|t| !t.takes_roles() && !t.role.options.is_empty()) {
        let operands = if tool.operands.chars().all(|c| c.is_ascii_lowercase() || c == '|') {
            tool.operands.replace('|', " ")
        } else {
            String::new()
        };
        let words = format!("{operands} {}", long(tool.role.options));
        let _ = writeln!(out, "        {}) words='{}' ;;", tool.role.name, words.trim());
    }
    out.push_str(
        "    esac\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\ncomplete -F _beacond beacond\n",
    );
    out
}

/// The patterns by which a word opens a role or tool: first of all, behind a `+`, or behind a tool that looks into
/// a configuration.
fn openings(commands: &str) -> String {
    let behind: Vec<&str> = TOOLS.iter().filter(|t| t.takes_roles()).map(|t| t.role.name).collect();
    let pattern = |name: &str| {
        let behind = behind.iter().map(|tool| format!("|{tool}:{name}"));
        format!(":{name}|+:{name}{}", behind.collect::<String>())
    };
    names(commands.split(' ').map(pattern)).replace(' ', "|")
}

/// The options whose value is a file, as a pattern.
fn file_options() -> String {
    let rows = options::roles().iter().flat_map(|r| r.options);
    let rows = rows.chain(TOOLS.iter().flat_map(|t| t.role.options)).chain(GLOBAL.options);
    let file = |o: &&Opt| o.arg.split('|').any(|a| a == "FILE" || a == "PATH");
    let mut options: Vec<String> = rows.filter(file).map(|o| format!("--{}", o.name)).collect();
    sort(&mut options, Ord::cmp);
    options.dedup();
    format!("-c|--config|{}", options.join("|"))
}

fn long(rows: &[Opt]) -> String {
    names(rows.iter().map(|o| format!("--{}", o.name)))
}

fn names<T: ToString>(names: impl Iterator<Item = T>) -> String {
    names.map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}
