//! etcd, both ways: the sink `etcd` keeps a balancer's members there, and `etcd-watch` brings them in elsewhere.
//!
//! Here: their options and what they come to. [`wire`] is etcd's language, with [`base64`]; [`mod@layout`] says which keys
//! and values a member has, [`mirror`] what is there. [`machine`] decides for the sink, [`watcher`] for the watch;
//! [`service`] and [`watch`] are the two at work, over a [`link`].

pub mod base64;
pub mod layout;
pub mod link;
pub mod machine;
pub mod mirror;
pub mod service;
pub mod watch;
pub mod watcher;
pub mod wire;

use crate::beacon::settings;
use crate::config::plan::Ground;
use crate::config::values;
use crate::config::{Error, Section};
use crate::http1::HttpUrl;
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use crate::secret::{Login, file};
use crate::url::host_name;
use layout::{Layout, MARKS, Site};
use machine::Pace;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

/// The role of the sink and its rows.
pub const ROLE: Role = Role {
    name: "etcd",
    story: Story::Found,
    table: Table::Reads,
    summary: "keep the members in etcd, together with other receivers",
    about: "Writes the members of a balancer into etcd 3.4 or later, through its HTTP/1.1 gateway. Any number of \
            beacond may write the same members: every one that hears a member keeps the same lease alive, so one \
            that dies takes nothing away, and a member is gone once nobody has heard it for its timeout, at most one \
            and a half times that. A goodbye takes it away at once. A member that is evicted here alone stays as long \
            as somebody else hears it. Nothing is written while nothing changes but the replay marks, with which a \
            restarted receiver knows what it must not accept again.\n\n\
            When etcd is away, nothing changes here; it is filled again when it returns.",
    options: &[
        ENDPOINT,
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are written. A leading balancer:// is dropped.",
        },
        PREFIX,
        CLUSTER,
        Opt {
            name: "layout",
            arg: "plain|traefik|skydns",
            repeat: true,
            default: "",
            help: "For whom to write: plain for etcd-watch and scripts, traefik for Traefik's etcd provider, skydns for \
                   CoreDNS. May be given several times; plain if it is not. Members of weight 0 are left out of \
                   the last two, and weights out of traefik.",
        },
        Opt {
            name: "service",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "What Traefik calls the service; the balancer's name if it is not given.",
        },
        Opt {
            name: "zone",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "The DNS name that leads to all members, such as web.example.lan. Required with skydns.",
        },
        AUTH_FILE,
        Opt {
            name: "marks",
            arg: "TIME",
            repeat: false,
            default: "",
            help: "How often the replay mark of a member that is up is written; a third of the listener's --max-skew \
                   if it is not given. With 0 only when the member itself is written, leaves or is evicted, and when \
                   beacond ends: then nothing at all is written while nothing changes, but a beacond that was killed \
                   may take in a replay of a member that was up.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often etcd is read and compared when nothing has changed, at least 100ms.",
        },
    ],
};

const ENDPOINT: Opt = Opt {
    name: "endpoint",
    arg: "URL",
    repeat: true,
    default: "",
    help: "A server of the etcd cluster, such as http://127.0.0.1:2379. May be given several times: when one fails, the \
           next is asked. Required.",
};

const PREFIX: Opt = Opt {
    name: "prefix",
    arg: "PATH",
    repeat: false,
    default: "/beacond",
    help: "What the keys of members and of replay marks begin with.",
};

const CLUSTER: Opt = Opt {
    name: "cluster",
    arg: "NAME",
    repeat: false,
    default: "default",
    help: "The fleet of receivers that write the same members; it stands behind the prefix in every key.",
};

const AUTH_FILE: Opt = Opt {
    name: "auth-file",
    arg: "FILE",
    repeat: false,
    default: "",
    help: "A file with one line user:password, for an etcd with authentication. Only this process's user, or a group of \
           it, may be able to read it.",
};

/// What the sink's options come to.
#[derive(Debug)]
pub struct Config {
    /// What the sink is called in logs and in `status`.
    pub name: String,
    /// The servers of the cluster.
    pub endpoints: Vec<HttpUrl>,
    /// Who asks.
    pub login: Option<Login>,
    /// Which keys.
    pub site: Site,
    /// How often.
    pub pace: Pace,
}

/// Reads the section: a sink ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let login = login(section, ground)?;
    let fingerprint = fingerprint(section, login.as_ref());
    let mut config = Config::from_section(section, login)?;
    if let Some(first) = config.endpoints.first().filter(|_| ground.twin.is_some()) {
        config.name = format!("{}@{}", config.name, first.authority);
    }
    Ok(Planned { service: Box::new(service::Etcd::new(config)), fingerprint })
}

impl Config {
    fn from_section(section: &Section, login: Option<Login>) -> Result<Config, Error> {
        let site = site(section)?;
        let least = Duration::from_millis(100);
        Ok(Config {
            name: format!("etcd:{}", site.balancer),
            endpoints: endpoints(section)?,
            login,
            site,
            pace: Pace {
                every: section.need("every", values::duration_from(least))?,
                marks: section.get("marks", values::duration)?,
            },
        })
    }
}

fn site(section: &Section) -> Result<Site, Error> {
    let (cluster, balancer) = place(section)?;
    let given = section.all("layout", layout)?;
    let all = [Layout::Plain, Layout::Traefik, Layout::SkyDns];
    let layouts =
        all.into_iter().filter(|one| given.contains(one) || (given.is_empty() && *one == Layout::Plain));
    let layouts: Vec<Layout> = layouts.collect();
    let zone = section.get("zone", zone)?;
    if zone.is_none() && layouts.contains(&Layout::SkyDns) {
        return Err(section.wrong("zone", "the DNS name that leads to the members, as --layout skydns needs"));
    }
    let service = section.get("service", word)?.unwrap_or_else(|| balancer.clone());
    if word(&service).is_err() && layouts.contains(&Layout::Traefik) {
        return Err(section.wrong("service", "a name for Traefik, as the balancer's is none"));
    }
    Ok(Site {
        prefix: section.need("prefix", prefix)?,
        cluster,
        service,
        zone: zone.unwrap_or_default(),
        balancer,
        layouts,
    })
}

/// Cluster and balancer. Neither may lead to where marks are kept, of this cluster or of another.
fn place(section: &Section) -> Result<(String, String), Error> {
    let (cluster, balancer) =
        (section.need("cluster", word)?, section.need("balancer", values::balancer_name)?);
    let wrong =
        |name: &str| Err(section.wrong(name, "another name: the replay marks are kept under this one"));
    if balancer.split('/').next() == Some(MARKS) {
        return wrong("balancer");
    }
    if cluster == MARKS { wrong("cluster") } else { Ok((cluster, balancer)) }
}

fn endpoints(section: &Section) -> Result<Vec<HttpUrl>, Error> {
    let endpoints = section.all("endpoint", |value| {
        let url = HttpUrl::parse(value).map_err(str::to_owned)?;
        if url.target == "/" {
            Ok(url)
        } else {
            Err("a url without a path, such as http://host:2379".to_owned())
        }
    })?;
    if endpoints.is_empty() {
        return Err(section.wrong("endpoint", "a server of the etcd cluster, such as http://127.0.0.1:2379"));
    }
    Ok(endpoints)
}

fn login(section: &Section, ground: &Ground<'_>) -> Result<Option<Login>, Error> {
    let Some(path) = section.text("auth-file") else { return Ok(None) };
    let login = file::load_login(Path::new(path), ground.groups);
    let place = section.place_of("auth-file");
    login.map(Some).map_err(|e| Error { message: format!("{place}: {}", e.message), ..e })
}

/// What a section and its login come to, as a text that differs where they do and shows no secret.
fn fingerprint(section: &Section, login: Option<&Login>) -> String {
    let mut hasher = DefaultHasher::new();
    login.map(|login| (login.user(), login.password())).hash(&mut hasher);
    format!("{}{:x}", settings::fingerprint(section, &[]), hasher.finish())
}

fn layout(value: &str) -> Result<Layout, String> {
    match value {
        "plain" => Ok(Layout::Plain),
        "traefik" => Ok(Layout::Traefik),
        "skydns" => Ok(Layout::SkyDns),
        _ => Err("plain, traefik or skydns".to_owned()),
    }
}

/// A key's beginning. Its end is ours to make.
fn prefix(value: &str) -> Result<String, String> {
    let path = value.strip_suffix('/').unwrap_or(value);
    let fine = (1..=255).contains(&path.len()) && path.bytes().all(|b| b.is_ascii_graphic());
    if fine { Ok(path.to_owned()) } else { Err("a path such as /beacond, without blanks".to_owned()) }
}

/// One step of a key's path.
fn word(value: &str) -> Result<String, String> {
    let fine = (1..=255).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
    if fine {
        Ok(value.to_owned())
    } else {
        Err("a name of printable ASCII characters, no blanks, no /".to_owned())
    }
}

fn zone(value: &str) -> Result<String, String> {
    host_name(value).ok_or_else(|| "a DNS name such as web.example.lan".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_could_lead_elsewhere_are_refused() {
        assert_eq!(prefix("/a/b/"), Ok("/a/b".to_owned()));
        for bad in ["", "/", "/a b", "/\u{e9}"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
        assert_eq!(word("web-1"), Ok("web-1".to_owned()));
        for bad in ["", "a/b", "a b"] {
            assert!(word(bad).is_err(), "{bad}");
        }
        assert_eq!(zone("Web.Example.lan"), Ok("web.example.lan".to_owned()));
        assert!(zone("web..lan").is_err() && zone("10.0.0.5").is_err());
    }
}
