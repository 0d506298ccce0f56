//! The tools' rows in the table of options.

use crate::options::{OF_ROLES, Opt, Role, Story, Table, Tool};

/// Every tool, in the order of the alphabet.
pub const TOOLS: &[Tool] = &[
    tool("check", OF_ROLES, "check a configuration without running it", CHECK),
    tool("completions", "bash|zsh", "print a completion script for a shell", &[]),
    tool("decode", DECODED, "explain captured bytes, one hex line each", DECODE),
    #[cfg(all(feature = "announce", feature = "listen", feature = "proxy"))]
    tool("demo", "", "show it all on this machine, in a few seconds", DEMO),
    #[cfg(feature = "proxy")]
    tool("explain", OF_ROLES, "say where a proxy would send a session, and why", EXPLAIN),
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
