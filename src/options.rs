//! The one table of options. Each room exports its rows; this file joins them, and the parser of sections, `--help`,
//! `beacond help ROLE`, both man pages, the shell completions and the README's table are all made from it.
//!
//! Nothing here parses or prints.

use crate::config::env::Environment;
pub use crate::tools::rows::TOOLS;

/// One option: a row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opt {
    /// The long name, without dashes.
    pub name: &'static str,
    /// What its value is called in help texts, as `ADDR`; empty for a flag.
    pub arg: &'static str,
    /// Whether it may be given more than once.
    pub repeat: bool,
    /// The value it has when it is not given; empty for none. `{hostname}` stands for this host's name.
    pub default: &'static str,
    /// What it does, in one or two sentences of plain text, with units and the reason for its bound.
    pub help: &'static str,
}

impl Opt {
    /// Whether it stands alone, without a value.
    #[must_use]
    pub fn is_flag(&self) -> bool {
        self.arg.is_empty()
    }
}

/// The part a role plays in the two stories the program tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Story {
    /// It belongs to every story: the global options.
    Any,
    /// Backends are found: they register with a load balancer.
    Found,
    /// Machines are reached: packets between those that cannot reach each other.
    Reached,
}

/// What a role does with the members of the balancer it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// It brings members in.
    Writes,
    /// It makes something follow them.
    Reads,
    /// It has nothing to do with the member table.
    Neither,
}

/// A kind of service: what a section of the file, or a command, is named after.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name: the section's, the command's and its log target.
    pub name: &'static str,
    /// Which story it belongs to.
    pub story: Story,
    /// What it does with the member table.
    pub table: Table,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What it does, in a paragraph or several, separated by blank lines.
    pub about: &'static str,
    /// Its rows, in the order in which help shows them.
    pub options: &'static [Opt],
}

impl Role {
    /// The row of the option called `name`.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'static Opt> {
        self.options.iter().find(|o| o.name == name)
    }
}

/// The options that stand before the first role, or before the first section of a file.
pub const GLOBAL: Role = Role {
    name: "",
    story: Story::Any,
    table: Table::Neither,
    summary: "options of the whole process",
    about: "",
    options: &[
        Opt {
            name: "log-level",
            arg: "LEVEL",
            repeat: false,
            default: "info",
            help: "How much to say on standard error: error, warn, info, debug or trace.",
        },
        Opt {
            name: "log-stamp",
            arg: "",
            repeat: false,
            default: "",
            help: "Begin each log line with the Unix time in seconds, for a log that nothing else stamps.",
        },
        Opt {
            name: "control",
            arg: "PATH",
            repeat: false,
            default: "",
            help: "The control socket for status, reload, log and trace. Without it /run/beacond/control.sock is used \
                   where its folder can be written, and given up with a warning where another beacond holds it.",
        },
        Opt {
            name: "state",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "Keep the member table in this file across restarts, so that a restart neither empties a balancer \
                   nor lets a recorded announcement in again. Without it the table starts empty.",
        },
        Opt {
            name: "user",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "Become this user once every socket is bound and every file is open. A reload reads as this user: give \
                   it the secret files and the configuration too, by its group.",
        },
        Opt {
            name: "pid-file",
            arg: "PATH",
            repeat: false,
            default: "",
            help: "Write the process id here once everything is bound; removed at a clean end, if the user that we are \
                   then may write to its folder.",
        },
    ],
};

/// Every role that this program was built with.
#[must_use]
pub fn roles() -> &'static [&'static Role] {
    &[
        #[cfg(feature = "announce")]
        &crate::beacon::announce::ROLE,
        #[cfg(feature = "listen")]
        &crate::beacon::listen::ROLE,
        #[cfg(feature = "haproxy")]
        &crate::sinks::haproxy::ROLE,
        #[cfg(feature = "apache")]
        &crate::sinks::apache::ROLE,
        #[cfg(feature = "caddy")]
        &crate::sinks::caddy::ROLE,
        #[cfg(feature = "nginx")]
        &crate::sinks::nginx::ROLE,
        #[cfg(feature = "file")]
        &crate::sinks::file::ROLE,
        #[cfg(feature = "etcd")]
        &crate::sinks::etcd::ROLE,
        #[cfg(feature = "etcd")]
        &crate::sinks::etcd::watch::ROLE,
        #[cfg(feature = "exec")]
        &crate::sinks::exec::ROLE,
        #[cfg(feature = "proxy")]
        &crate::proxy::ROLE,
    ]
}

/// The roles in which a flag `env` makes environment variables the defaults of options, with what those give.
#[must_use]
pub fn environments() -> &'static [(&'static str, Environment)] {
    &[
        #[cfg(feature = "proxy")]
        ("proxy", crate::proxy::env::defaults),
    ]
}

/// The operands of a tool that looks into a configuration.
pub const OF_ROLES: &str = "-c FILE | ROLE ...";

/// A command that does one thing and ends.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name and options, as those of a role.
    pub role: Role,
    /// What stands behind its options, as `LEVEL`; empty for nothing.
    pub operands: &'static str,
}

impl Tool {
    /// Whether it looks into a configuration: roles or a file stand behind its options, and global options among them.
    #[must_use]
    pub fn takes_roles(&self) -> bool {
        self.operands == OF_ROLES
    }
}

/// The role called `name`.
#[must_use]
pub fn role(name: &str) -> Option<&'static Role> {
    roles().iter().copied().find(|r| r.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn rows_are_well_formed() {
        let mut names = BTreeSet::new();
        for role in roles().iter().copied().chain(TOOLS.iter().map(|t| &t.role)) {
            assert!(names.insert(role.name), "two commands called {}", role.name);
        }
        let tools = TOOLS.iter().map(|t| &t.role);
        for role in roles().iter().copied().chain([&GLOBAL]).chain(tools) {
            let mut options = BTreeSet::new();
            for opt in role.options {
                let at = format!("{} {}", role.name, opt.name);
                assert!(options.insert(opt.name), "{at}: twice");
                assert!(opt.name.len() > 1, "{at}: getopts takes a single letter for a short option");
                assert!(opt.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{at}: name");
                assert!(opt.help.ends_with('.') && opt.help.is_ascii(), "{at}: help");
                assert!(!opt.is_flag() || (opt.default.is_empty() && !opt.repeat), "{at}: a flag is plain");
                assert!(!opt.repeat || opt.default.is_empty(), "{at}: a repeated option has no default");
            }
            assert!(!options.contains("help") && !options.contains("include"), "{}: reserved", role.name);
        }
    }
}
