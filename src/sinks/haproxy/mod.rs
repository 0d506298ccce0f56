//! The sink `haproxy`: an unmodified HAProxy follows a balancer's members through its runtime API.
//!
//! Here: its options and what they come to. [`machine`] decides, with what [`notes`] remembers; [`commands`]
//! and [`replies`] are HAProxy's language; [`service`] sends and receives, one [`exchange`] at a time.

pub mod commands;
pub mod exchange;
pub mod machine;
pub mod notes;
pub mod replies;
pub mod service;

use super::Refused;
use crate::config::plan::Ground;
use crate::config::values::{self, HostPort};
use crate::config::{Error, Section};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use commands::Site;
use machine::Pace;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "haproxy",
    story: Story::Found,
    table: Table::Reads,
    summary: "make a backend of HAProxy follow the members",
    about: "Adds, enables, drains, disables and removes servers of one HAProxy backend through the runtime API \
            (stats socket PATH level admin), so that they match the members of a balancer. After every change, and \
            at every interval, it reads back what HAProxy has; a restarted or reloaded HAProxy, which forgets its \
            run-time servers, is filled again within about a second. Servers it did not add are left alone, and an \
            operator's maintenance wins. HAProxy 2.6 or later.",
    options: &[
        Opt {
            name: "socket",
            arg: "PATH|HOST:PORT",
            repeat: false,
            default: "",
            help: "HAProxy's runtime API: the path of its stats socket, or an address and port. Required.",
        },
        Opt {
            name: "backend",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "The backend whose servers follow the members. It must use dynamic load balancing, such as \
                   roundrobin or leastconn. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "prefix",
            arg: "TEXT",
            repeat: false,
            default: "b-",
            help: "What the names of our servers begin with, as in b-10.0.0.5:8080. Other servers of the backend are \
                   never touched.",
        },
        Opt {
            name: "server-options",
            arg: "TEXT",
            repeat: false,
            default: "check inter 2s rise 1 fall 2 pool-max-conn 50 pool-purge-delay 5s",
            help: "What is appended to add server. With check a new server takes traffic once its first check has \
                   passed, without at once. With ssl the members are those with https urls, which are refused \
                   otherwise. Without pool-max-conn and pool-purge-delay HAProxy 2.6 keeps no connection to a \
                   run-time server.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often HAProxy's servers are read back and compared when nothing has changed, at least 100ms.",
        },
        Opt {
            name: "grace",
            arg: "TIME",
            repeat: false,
            default: "30",
            help: "How long a member that said goodbye may finish its requests before its server is removed.",
        },
    ],
};

/// What the options come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What the sink is called in logs and in `status`: `haproxy:BACKEND`, and which HAProxy where there are several.
    pub name: String,
    /// Where HAProxy's runtime API is.
    pub door: Door,
    /// The balancer's name.
    pub balancer: String,
    /// Where our servers live in HAProxy, and how they are made.
    pub site: Site,
    /// How often, and for how long.
    pub pace: Pace,
}

/// Where HAProxy's runtime API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Door {
    /// A unix socket.
    Path(PathBuf),
    /// A TCP port.
    Addr(SocketAddr),
    /// A TCP port of a host whose name must be looked up.
    Name(String, u16),
}

/// Reads the section: a sink ready to start.
///
/// # Errors
/// The first option that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let mut config = Config::from_section(section)?;
    if ground.twin.is_some() {
        config.name = format!("{}@{}", config.name, section.text("socket").unwrap_or_default());
    }
    Ok(Planned { service: Box::new(service::Haproxy::new(config)), fingerprint: section.fingerprint() })
}

impl Config {
    /// Reads the section.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn from_section(section: &Section) -> Result<Config, Error> {
        let backend = section.need("backend", name)?;
        Ok(Config {
            name: format!("haproxy:{backend}"),
            door: section.need("socket", door)?,
            balancer: section.need("balancer", values::balancer_name)?,
            site: Site {
                backend,
                prefix: section.need("prefix", prefix)?,
                options: section.need("server-options", server_options)?,
            },
            pace: Pace {
                every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
                grace: section.need("grace", values::duration)?,
            },
        })
    }
}

/// Whether servers made with `site`'s options can be talked to by `scheme`. TLS schemes need the word `ssl`
/// there, with the verification the operator wants, and other schemes must not have it; `h2c` needs `proto
/// h2`.
///
/// # Errors
/// [`Refused::Scheme`].
pub fn accept_scheme(site: &Site, scheme: &str) -> Result<(), Refused> {
    let tls = matches!(scheme, "https" | "wss" | "tls");
    let honoured = match scheme {
        "h2c" => site.has_option("h2") && !site.has_option("ssl"),
        _ => tls == site.has_option("ssl"),
    };
    if honoured { Ok(()) } else { Err(Refused::Scheme(scheme.to_owned())) }
}

fn door(value: &str) -> Result<Door, String> {
    if value.contains('/') && !value.contains("://") {
        return Ok(Door::Path(PathBuf::from(value)));
    }
    let wanted = || "a path such as /run/haproxy/admin.sock, or an address and port".to_owned();
    let at = values::addr(value).map_err(|_| wanted())?;
    match (at.ip(), at) {
        (_, HostPort { port: None | Some(0), .. } | HostPort { host: None, .. }) => Err(wanted()),
        (Some(ip), HostPort { port: Some(port), .. }) => Ok(Door::Addr(SocketAddr::new(ip, port))),
        (None, HostPort { host: Some(host), port: Some(port) }) => Ok(Door::Name(host, port)),
    }
}

/// A name as HAProxy has them; anything else could become another command.
fn name(value: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    let fine = !value.is_empty() && value.bytes().all(legal);
    if fine { Ok(value.to_owned()) } else { Err("a backend's name: letters, digits and - _ . :".to_owned()) }
}

fn prefix(value: &str) -> Result<String, String> {
    let fine = name(value).is_ok() && value.len() <= LONGEST_PREFIX;
    let wanted = || format!("1 to {LONGEST_PREFIX} letters, digits and - _ . :");
    if fine { Ok(value.to_owned()) } else { Err(wanted()) }
}

/// Words for `add server`: none that would end the command, and none for what we decide ourselves.
fn server_options(value: &str) -> Result<String, String> {
    let legal = |b: u8| (b.is_ascii_graphic() && !b";\\\"'#<".contains(&b)) || b == b' ' || b == b'\t';
    if !value.bytes().all(legal) {
        return Err("words for HAProxy's add server, without ; \\ # < and quotes".to_owned());
    }
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    match words.iter().find(|word| OURS.contains(word)) {
        Some(word) => Err(format!("no '{word}' among the options: beacond sets that itself")),
        None => Ok(words.join(" ")),
    }
}

/// Options of `add server` that are ours to give. `enabled` is worse than useless: HAProxy 2.6 shows such a
/// server up and sends it nothing; `agent-check` sets weights, which come from the members.
const OURS: [&str; 5] = ["agent-check", "disabled", "enabled", "id", "weight"];

const LONGEST_PREFIX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doors() {
        assert_eq!(door("/run/haproxy/admin.sock"), Ok(Door::Path("/run/haproxy/admin.sock".into())));
        assert_eq!(door("./admin.sock"), Ok(Door::Path("./admin.sock".into())));
        assert_eq!(door("127.0.0.1:9999"), Ok(Door::Addr("127.0.0.1:9999".parse().unwrap())));
        assert_eq!(door("[::1]:9999"), Ok(Door::Addr("[::1]:9999".parse().unwrap())));
        assert_eq!(door("lb.example:9999"), Ok(Door::Name("lb.example".to_owned(), 9999)));
        for bad in ["", "admin.sock", "127.0.0.1", "127.0.0.1:0", ":9999"] {
            assert!(door(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nothing_that_could_end_a_command() {
        assert_eq!(name("web_1.a:b-c"), Ok("web_1.a:b-c".to_owned()));
        for bad in ["", "a b", "a;b", "a/b", "a\n"] {
            assert!(name(bad).is_err() && prefix(bad).is_err(), "{bad}");
        }
        assert_eq!(server_options("  check  inter 1s "), Ok("check inter 1s".to_owned()));
        for bad in ["check;shutdown", "check\nquit", "sni \"x\"", "check enabled", "id 7", "weight 3"] {
            assert!(server_options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn schemes_are_honoured_or_refused() {
        let site =
            |options: &str| Site { backend: "web".into(), prefix: "b-".into(), options: options.into() };
        let plain = site("check");
        let tls = site("check ssl verify required ca-file /etc/ssl/ca.pem");
        for (scheme, in_plain, in_tls) in
            [("http", true, false), ("tcp", true, false), ("https", false, true), ("wss", false, true)]
        {
            assert_eq!(accept_scheme(&plain, scheme).is_ok(), in_plain, "{scheme}");
            assert_eq!(accept_scheme(&tls, scheme).is_ok(), in_tls, "{scheme}");
        }
        assert!(accept_scheme(&plain, "h2c").is_err() && accept_scheme(&site("proto h2"), "h2c").is_ok());
    }
}
