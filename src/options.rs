//! The one table of options. Each room exports its rows; this file joins them, and the parser of sections, `--help`,
//! `beacond help ROLE`, both man pages, the shell completions and the README's table are all made from it.
//!
//! Nothing here parses or prints.

use crate::config::env::Environment;

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
            help: "Become this user once every socket is bound and every file is open.",
        },
        Opt {
            name: "pid-file",
            arg: "PATH",
            repeat: false,
            default: "",
            help: "Write the process id here once everything is bound; removed at a clean end.",
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
        self.operands == ROLES
    }
}

/// The operands of a tool that looks into a configuration.
const ROLES: &str = "-c FILE | ROLE ...";

/// Every tool, in the order of the alphabet.
pub const TOOLS: &[Tool] = &[
    tool("check", ROLES, "check a configuration without running it", CHECK),
    tool("completions", "bash|zsh", "print a completion script for a shell", &[]),
    tool("decode", DECODED, "explain captured bytes, one hex line each", DECODE),
    #[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
    tool("demo", "", "show it all on this machine, in a few seconds", DEMO),
    #[cfg(feature = "proxy")]
    tool("explain", ROLES, "say where a proxy would send a session, and why", EXPLAIN),
    tool("help", "[TOPIC]", "explain a role, a story or a tool", &[]),
    tool("keygen", "secret|member", "print a secret, or a member's passphrase", KEYGEN),
    tool("log", "LEVEL", "change the log level of a running beacond", LOG),
    tool("reload", "", "make a running beacond read its file again", &[CONTROL]),
    tool("status", "", "show balancers and members of a running beacond", STATUS),
    #[cfg(feature = "proxy")]
    tool("trace", "", "show what happens to new sessions of a running beacond", TRACE),
];

const CONTROL: Opt = Opt {
    name: "control",
    arg: "PATH",
    repeat: false,
    default: "/run/beacond/control.sock",
    help: "The control socket of the beacond that is asked.",
};

const CHECK: &[Opt] = &[Opt {
    name: "show",
    arg: "",
    repeat: false,
    default: "",
    help: "Print every value in effect and where it comes from.",
}];

#[cfg(feature = "proxy")]
const EXPLAIN: &[Opt] = &[
    Opt {
        name: "sni",
        arg: "NAME",
        repeat: false,
        default: "",
        help: "The server name that the session's TLS hello asks for.",
    },
    Opt {
        name: "alpn",
        arg: "NAME",
        repeat: true,
        default: "",
        help: "A protocol that the hello offers, the one the client likes best first.",
    },
    Opt {
        name: "authority",
        arg: "NAME",
        repeat: false,
        default: "",
        help: "The name in the session's PROXY header, with or without a port.",
    },
    Opt {
        name: "from",
        arg: "IP",
        repeat: false,
        default: "",
        help: "The client's address, to be judged by allow and deny.",
    },
];

/// The kinds of bytes that `decode` explains.
#[cfg(feature = "proxy")]
const DECODED: &str = "beacon|hello|proxy";
/// The kinds of bytes that `decode` explains.
#[cfg(not(feature = "proxy"))]
const DECODED: &str = "beacon";

const DECODE: &[Opt] = &[
    Opt {
        name: "secret-file",
        arg: "FILE",
        repeat: false,
        default: "",
        help: "For beacon: verify with the secrets in this file, weak ones too. Without it nothing is verified.",
    },
    Opt {
        name: "now",
        arg: "MICROS",
        repeat: false,
        default: "",
        help: "For beacon: judge freshness at this time, in microseconds since 1970, instead of now.",
    },
    Opt {
        name: "max-skew",
        arg: "TIME",
        repeat: false,
        default: "30",
        help: "For beacon: how far a sender's clock may be off, in whole seconds, at least 1.",
    },
];

#[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
const DEMO: &[Opt] = &[Opt {
    name: "log-level",
    arg: "LEVEL",
    repeat: false,
    default: "error",
    help: "How much the daemon part says on standard error: error, warn, info, debug or trace.",
}];

const KEYGEN: &[Opt] = &[
    Opt {
        name: "master",
        arg: "FILE",
        repeat: false,
        default: "",
        help: "The master key from which a member's passphrase is derived.",
    },
    Opt {
        name: "balancer",
        arg: "NAME",
        repeat: false,
        default: "default",
        help: "The balancer the member announces to.",
    },
    Opt {
        name: "weak-secret",
        arg: "",
        repeat: false,
        default: "",
        help: "Accept a master key shorter than 22 characters.",
    },
    Opt {
        name: "url",
        arg: "URL",
        repeat: false,
        default: "",
        help: "The URL the member announces: the only one its passphrase can sign for.",
    },
];

const LOG: &[Opt] = &[
    Opt {
        name: "for",
        arg: "TIME",
        repeat: false,
        default: "",
        help: "Go back to the configured level after this long.",
    },
    CONTROL,
];

const STATUS: &[Opt] = &[
    Opt { name: "json", arg: "", repeat: false, default: "", help: "Print it as JSON, on one line." },
    Opt {
        name: "sessions",
        arg: "",
        repeat: false,
        default: "",
        help: "Show what each proxy carries instead: its routes, members and sessions.",
    },
    Opt { name: "watch", arg: "", repeat: false, default: "", help: "Show it again every second." },
    CONTROL,
];

#[cfg(feature = "proxy")]
const TRACE: &[Opt] = &[
    Opt {
        name: "sni",
        arg: "NAME",
        repeat: false,
        default: "",
        help: "Only sessions of clients that ask for this name; *.example.com means every name below example.com.",
    },
    Opt {
        name: "from",
        arg: "CIDR",
        repeat: false,
        default: "",
        help: "Only sessions of clients in this network, such as 192.0.2.0/24.",
    },
    Opt {
        name: "count",
        arg: "N",
        repeat: false,
        default: "10",
        help: "End once so many sessions have ended, at most 1000.",
    },
    Opt {
        name: "for",
        arg: "TIME",
        repeat: false,
        default: "60",
        help: "End after this long in any case, at most 1h.",
    },
    CONTROL,
];

const fn tool(
    name: &'static str,
    operands: &'static str,
    summary: &'static str,
    options: &'static [Opt],
) -> Tool {
    Tool {
        role: Role { name, story: Story::Any, table: Table::Neither, summary, about: "", options },
        operands,
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
