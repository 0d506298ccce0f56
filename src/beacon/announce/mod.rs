//! The role `announce`: makes a backend known to the receivers it names.
//!
//! Here: its options and what they come to. [`receivers`] knows where to send, [`service`] when, `stamp` with which
//! timestamps. What is sent is in [`super::wire`]; whether the backend is fit to be announced, in [`super::health`].

pub mod receivers;
pub mod service;
pub mod stamp;

use super::admission::{Admission, Advertise};
use super::auth::Key;
use super::health::{Check, HealthConfig};
use super::settings;
use super::wire::MAX_WEIGHT;
use crate::config::plan::Ground;
use crate::config::values::{self, HostPort};
use crate::config::{Error, Section};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "announce",
    story: Story::Found,
    table: Table::Neither,
    summary: "announce this backend to its load balancer",
    about: "Sends a signed announcement to every receiver at once and then at every interval, and says goodbye when \
            it is stopped. With --check it announces only while the backend is healthy.",
    options: &[
        Opt {
            name: "address",
            arg: "ADDR",
            repeat: true,
            default: "",
            help: "A receiver, [scheme://]host[:port]; the scheme is ignored, the port is 5555 when left out, IPv6 \
                   stands in brackets. Each receiver gets every announcement. A name that does not resolve is tried \
                   again later.",
        },
        Opt {
            name: "advertise",
            arg: "URL",
            repeat: false,
            default: "",
            help: "The backend's URL, scheme://host:port. Without a host, as http://:8080, the source address used \
                   towards each receiver is filled in. Without the option a heartbeat is sent that makes nobody a \
                   member.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer meant. When it is given, a beacond that listens for another balancer drops the \
                   announcement, so that one secret may serve two of them. A leading balancer:// is dropped.",
        },
        Opt {
            name: "secret-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "The secrets, one a line; the first signs. Only this process's user, or a group of it, may be able \
                   to read the file.",
        },
        Opt {
            name: "sign",
            arg: "first|all",
            repeat: false,
            default: "first",
            help: "Sign with the first secret, or send one datagram for each secret: for a rotation towards receivers \
                   that know only one.",
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
            help: "Send unsigned announcements: for a laboratory.",
        },
        Opt {
            name: "interval",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often to announce, at least 100ms. The receiver's timeout should be three intervals or more.",
        },
        Opt {
            name: "no-jitter",
            arg: "",
            repeat: false,
            default: "",
            help: "Send exactly on the interval. Otherwise each gap varies by up to a tenth, so that many senders do \
                   not fall into step.",
        },
        Opt {
            name: "weight",
            arg: "N",
            repeat: false,
            default: "1",
            help: "The share of traffic asked for, 0 to 256, relative to the other members; 0 takes no new traffic.",
        },
        Opt {
            name: "resolve-interval",
            arg: "TIME",
            repeat: false,
            default: "60",
            help: "How often the receivers' names are looked up again, at least 1s.",
        },
        Opt {
            name: "host",
            arg: "NAME",
            repeat: false,
            default: "{hostname}",
            help: "The name this host gives itself in announcements; it is shown in status and logs only.",
        },
        Opt {
            name: "check",
            arg: "tcp:HOST:PORT|http://HOST/PATH|exec:COMMAND",
            repeat: false,
            default: "",
            help: "Announce only while this check of the backend passes: a connection is accepted, a GET is answered \
                   with 2xx or 3xx, or a command ends with status 0.",
        },
        Opt {
            name: "check-interval",
            arg: "TIME",
            repeat: false,
            default: "2",
            help: "How often to check, at least 100ms.",
        },
        Opt {
            name: "check-timeout",
            arg: "TIME",
            repeat: false,
            default: "1",
            help: "A check that takes longer than this has failed.",
        },
        Opt {
            name: "rise",
            arg: "N",
            repeat: false,
            default: "2",
            help: "How many checks in a row must pass before the backend counts as healthy.",
        },
        Opt {
            name: "fall",
            arg: "N",
            repeat: false,
            default: "3",
            help: "How many checks in a row must fail before the backend counts as unhealthy.",
        },
        Opt {
            name: "leave-on-fail",
            arg: "",
            repeat: false,
            default: "",
            help: "Say goodbye when the check fails, instead of falling silent and being evicted by the timeout.",
        },
        Opt {
            name: "schemes",
            arg: "LIST",
            repeat: false,
            default: "http https",
            help: "The URL schemes that may be advertised, separated by blanks. Receivers admit by rules of their \
                   own; the same check is made here, so that a mistake shows where it is made.",
        },
        Opt {
            name: "allow-names",
            arg: "",
            repeat: false,
            default: "",
            help: "Advertise a URL with a host name, where every receiver allows names.",
        },
        Opt {
            name: "allow",
            arg: "CIDR[:PORT[-PORT]]",
            repeat: true,
            default: "",
            help: "Advertise only these addresses and ports; needed for an address that receivers refuse by default, \
                   such as loopback.",
        },
    ],
};

/// The port of receivers, unless told otherwise.
pub const PORT: u16 = 5555;

/// The shortest interval, as in the reference.
const SHORTEST: Duration = Duration::from_millis(100);

/// What the options come to.
#[derive(Debug)]
pub struct Config {
    /// The receivers, at least one.
    pub addresses: Vec<HostPort>,
    /// What to announce; `None` is the heartbeat without a url.
    pub advertise: Option<Advertise>,
    /// The url rules for [`Config::advertise`].
    pub admission: Admission,
    /// The balancer meant, where one was named.
    pub balancer: Option<String>,
    /// The keys to sign with, one datagram for each; none in unauthenticated mode.
    pub keys: Vec<Key>,
    /// From one announcement to the next.
    pub interval: Duration,
    /// Whether gaps vary by up to a tenth.
    pub jitter: bool,
    /// The share of traffic asked for.
    pub weight: u16,
    /// From one lookup of the receivers' names to the next.
    pub resolve_interval: Duration,
    /// What this host calls itself.
    pub host: String,
    /// The health gate, if there is one.
    pub health: Option<HealthConfig>,
    /// Whether to say goodbye when health is lost.
    pub leave_on_fail: bool,
}

/// Reads the section and opens its files: a sender ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let secrets = settings::secrets(section, "secret-file", ground)?;
    let fingerprint = settings::fingerprint(section, &secrets.iter().collect::<Vec<_>>());
    let mut keys: Vec<Key> = Vec::new();
    if let Some(secrets) = &secrets {
        keys.extend(secrets.list.iter().map(|secret| Key::from_secret(secret.bytes())));
    } else if !section.flag("unauthenticated") {
        return Err(section.wrong("secret-file", "a secret to sign with (or --unauthenticated)"));
    }
    if section.need("sign", sign)? == Sign::First {
        keys.truncate(1);
    }
    let config = Config::new(section, keys)?;
    Ok(Planned { service: Box::new(service::Announcer::new(config)), fingerprint })
}

impl Config {
    fn new(section: &Section, keys: Vec<Key>) -> Result<Config, Error> {
        let addresses = section.all("address", receiver)?;
        if addresses.is_empty() {
            return Err(section.wrong("address", "at least one receiver, as 10.0.0.1:5555"));
        }
        let admission = settings::admission(section)?;
        let advertise = section
            .get("advertise", |text| Advertise::parse(text).map_err(|e| format!("a url; this one {e}")))?;
        if let Some(Advertise::Fixed(url)) = &advertise {
            admission.check(url).map_err(|e| {
                section.wrong("advertise", &format!("a url that receivers admit; this one {e}"))
            })?;
        }
        Ok(Config {
            addresses,
            advertise,
            admission,
            balancer: section.get("balancer", values::balancer_name)?.filter(|_| section.given("balancer")),
            keys,
            interval: section.need("interval", values::duration_from(SHORTEST))?,
            jitter: !section.flag("no-jitter"),
            weight: section.need("weight", weight)?,
            resolve_interval: section
                .need("resolve-interval", values::duration_from(Duration::from_secs(1)))?,
            host: section.need("host", values::text)?,
            health: health(section)?,
            leave_on_fail: section.flag("leave-on-fail"),
        })
    }
}

fn health(section: &Section) -> Result<Option<HealthConfig>, Error> {
    let Some(check) = section.get("check", Check::parse)? else {
        let about_checks = ["check-interval", "check-timeout", "rise", "fall", "leave-on-fail"];
        return match about_checks.into_iter().find(|name| section.given(name)) {
            Some(name) => Err(section.wrong(name, "a --check beside it")),
            None => Ok(None),
        };
    };
    Ok(Some(HealthConfig {
        check,
        interval: section.need("check-interval", values::duration_from(SHORTEST))?,
        timeout: section.need("check-timeout", values::duration_from(Duration::from_millis(1)))?,
        rise: section.need("rise", streak)?,
        fall: section.need("fall", streak)?,
    }))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    First,
    All,
}

fn sign(text: &str) -> Result<Sign, String> {
    match text {
        "first" => Ok(Sign::First),
        "all" => Ok(Sign::All),
        _ => Err("first or all".to_owned()),
    }
}

fn receiver(text: &str) -> Result<HostPort, String> {
    let at = values::addr(text)?;
    if at.host.is_none() || at.port == Some(0) {
        return Err("a receiver's host, and a port other than 0, as 10.0.0.1:5555".to_owned());
    }
    Ok(at)
}

fn weight(text: &str) -> Result<u16, String> {
    let number = values::number(0, u64::from(MAX_WEIGHT))(text)?;
    Ok(u16::try_from(number).unwrap_or(MAX_WEIGHT))
}

fn streak(text: &str) -> Result<usize, String> {
    let number = values::number(1, 1000)(text)?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}
