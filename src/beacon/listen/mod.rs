//! The role `listen`: hears announcements and keeps a balancer's members.
//!
//! Here: its options and what they come to; [`service`] is the receiver at work. What lets a datagram pass is in
//! [`super::gate`], what it then does to a member in [`crate::members`].

pub mod service;

use super::auth::Key;
use super::gate::Gate;
use super::member_keys::MemberKeys;
use super::settings;
use crate::config::plan::Ground;
use crate::config::values;
use crate::config::{Error, Section};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use std::net::SocketAddr;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "listen",
    story: Story::Found,
    table: Table::Writes,
    summary: "hear announcements and keep the balancer's members",
    about: "Receives signed announcements over UDP, verifies them and keeps the members of one balancer: a member is \
            added by its first announcement, evicted when it has been silent for longer than the timeout, and \
            enabled again by the next announcement. Sinks in the same process make a load balancer follow.",
    options: &[
        Opt {
            name: "listen",
            arg: "ADDR",
            repeat: false,
            default: "",
            help: "Where to receive, [scheme://][host][:port]; the scheme is ignored, IPv6 stands in brackets. A part \
                   that is left out is that of the first proxy here that follows the balancer, else 0.0.0.0 and 5555.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members these are; sinks of the same name follow them. A leading balancer:// \
                   is dropped.",
        },
        Opt {
            name: "secret-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "The shared secrets, one a line; an announcement signed with any of them is accepted. Only this \
                   process's user, or a group of it, may be able to read the file.",
        },
        Opt {
            name: "member-keys",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "A master key. A backend then needs a passphrase of its own (beacond keygen member), with which it \
                   can announce its own URL and no other.",
        },
        Opt {
            name: "weak-secret",
            arg: "",
            repeat: false,
            default: "",
            help: "Accept a secret shorter than 22 characters, although a recorded datagram lets anybody guess such a \
                   secret offline, at millions of tries a second.",
        },
        Opt {
            name: "unauthenticated",
            arg: "",
            repeat: false,
            default: "",
            help: "Accept announcements from anybody who can send one here: for a laboratory, and for old senders.",
        },
        Opt {
            name: "timeout",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "Evict a member that has been silent for longer than this; 0 means never. Below three times the \
                   sender's interval, single lost datagrams evict, and a warning says so.",
        },
        Opt {
            name: "max-skew",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "How far a sender's clock may be from ours, in whole seconds, at least 1. It is also how long a \
                   recorded datagram stays fresh.",
        },
        settings::MAX_MEMBERS,
        settings::FORGET,
        Opt {
            name: "when-deaf",
            arg: "hold|hold:TIME|evict",
            repeat: false,
            default: "hold",
            help: "What to do when two members or more are up and nothing valid has been heard for half a timeout, \
                   which is more likely our fault than theirs: hold evictions until something is heard, hold them \
                   for TIME at most, or evict all the same.",
        },
        Opt {
            name: "keep-last",
            arg: "",
            repeat: false,
            default: "",
            help: "Never evict the last member that is up.",
        },
        settings::SCHEMES,
        settings::ALLOW_NAMES,
        settings::ALLOW,
        Opt {
            name: "rcvbuf",
            arg: "SIZE",
            repeat: false,
            default: "1m",
            help: "The receive buffer asked of the kernel, from 4k to 512m: room for some 1,300 datagrams that arrive at once at the \
                   default, against 270 with what Linux gives by itself. Linux caps it at net.core.rmem_max.",
        },
    ],
};

/// What the options come to.
#[derive(Debug)]
pub struct Config {
    /// Where to receive.
    pub listen: SocketAddr,
    /// The balancer's name.
    pub balancer: String,
    /// What lets a datagram pass.
    pub gate: Gate,
    /// Silence longer than this evicts; zero: never.
    pub timeout: Duration,
    /// The receive buffer to ask for, in bytes.
    pub rcvbuf: usize,
}

/// Reads the section and opens its files: a receiver ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let shared = settings::secrets(section, "secret-file", ground)?;
    let master = settings::secrets(section, "member-keys", ground)?;
    let open = section.flag("unauthenticated");
    match (&shared, &master) {
        (None, None) if !open => {
            return Err(section
                .wrong("secret-file", "a secret to verify with (or --member-keys, or --unauthenticated)"));
        }
        (Some(_), _) | (_, Some(_)) if open => {
            return Err(section.wrong("unauthenticated", "either a secret or --unauthenticated, not both"));
        }
        _ => {}
    }
    let files: Vec<_> = shared.iter().chain(&master).collect();
    let fingerprint = settings::fingerprint(section, &files);
    let balancer = section.need("balancer", values::balancer_name)?;
    let capacity = section.need("max-members", values::count)?;
    let gate = Gate {
        keys: shared.iter().flat_map(|s| &s.list).map(|secret| Key::from_secret(secret.bytes())).collect(),
        member_keys: master.map(|master| MemberKeys::new(master.list, &balancer, capacity)),
        admission: settings::admission(section)?,
        balancer: balancer.clone(),
        max_skew: section.need("max-skew", values::whole_seconds)?,
    };
    let listen = ground.address.ok_or_else(|| section.wrong("listen", "an address"))?;
    let config = Config {
        listen,
        balancer,
        gate,
        timeout: section.need("timeout", values::duration)?,
        rcvbuf: section.need("rcvbuf", values::size_within(4 << 10, 512 << 20))?,
    };
    Ok(Planned {
        service: Box::new(service::Listen::new(config)),
        fingerprint: format!("{listen} {fingerprint}"),
    })
}
