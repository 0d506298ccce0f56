//! The sink `caddy`: the upstreams of one of Caddy's proxies follow a balancer's members through its admin API.
//!
//! Here: its options and what they come to. [`machine`] decides, [`upstreams`] is Caddy's language;
//! [`crate::sinks::http`] carries it.

pub mod machine;
pub mod upstreams;

use super::http::{HttpSink, Site};
use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::http1::HttpUrl;
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use crate::secret::file;
use machine::{Door, Machine};
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "caddy",
    story: Story::Found,
    table: Table::Reads,
    summary: "make a proxy of Caddy follow the members",
    about: "Keeps the upstreams of one reverse_proxy handler of Caddy 2 like the members of a balancer here, through the \
            admin API: what is up is in the list, whoever said goodbye, fell silent or has weight 0 is not. Weights \
            other than 0 mean nothing to it. The list is replaced only if it is still what was read, so several may \
            change it; upstreams that no announcement has named are kept where they are. A restarted Caddy, \
            which forgets the members unless it runs with --resume, is filled again at once. Each change makes Caddy \
            load its configuration anew, which ends idle connections of clients and web sockets: see min-gap. Give the \
            handler an \"@id\" in Caddy's JSON; a Caddyfile cannot have one (caddy adapt turns it into JSON).",
    options: &[
        Opt {
            name: "url",
            arg: "URL",
            repeat: false,
            default: "http://127.0.0.1:2019",
            help: "Caddy's admin API; http only. Caddy refuses requests by a name or address that its admin.listen and \
                   admin.origins do not have.",
        },
        Opt {
            name: "id",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "The @id of the reverse_proxy handler. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "tls",
            arg: "",
            repeat: false,
            default: "",
            help: "The handler talks TLS to its upstreams: members are those with https URLs, and others are refused. \
                   Without it they are those with http or h2c URLs.",
        },
        Opt {
            name: "auth-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "A file with one line user:password, for an admin API behind a proxy that wants basic authentication. \
                   As closed to others as a secret file.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often Caddy's list is read back and compared when nothing has changed, at least 100ms.",
        },
        Opt {
            name: "min-gap",
            arg: "TIME",
            repeat: false,
            default: "200ms",
            help: "The least time between two changes of the list: what changes meanwhile goes into one.",
        },
    ],
};

/// Reads the section and opens its file: a sink ready to start.
///
/// # Errors
/// The first option or file that is wrong.
pub fn plan(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let url = section.need("url", |text| HttpUrl::parse(text).map_err(str::to_owned))?;
    if url.target.contains('?') {
        return Err(section.wrong("url", "a url without a query"));
    }
    let id = section.need("id", id)?;
    let (login, mark) = file::login(section, "auth-file", ground.groups)?;
    let door = Door {
        target: format!("{}/id/{id}/upstreams", url.target.trim_end_matches('/')),
        id: id.clone(),
        tls: section.flag("tls"),
        every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
        min_gap: section.need("min-gap", values::duration)?,
    };
    let at = if ground.twin.is_some() { format!("@{url}") } else { String::new() };
    let balancer = section.need("balancer", values::balancer_name)?;
    let site = Site { name: format!("caddy:{id}{at}"), role: ROLE.name, balancer, url };
    let service = Box::new(HttpSink::new(site, login, Machine::new(door)));
    Ok(Planned { service, fingerprint: format!("{}{mark}", section.fingerprint()) })
}

/// An id that is one part of a path as it stands.
fn id(value: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let fine =
        !value.is_empty() && value.len() <= 128 && value.bytes().all(legal) && value != "." && value != "..";
    if fine { Ok(value.to_owned()) } else { Err("an @id of letters, digits and - _ . ~".to_owned()) }
}
