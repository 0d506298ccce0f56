//! The sink `apache`: a balancer of an unmodified Apache httpd follows one of ours through its balancer-manager.
//!
//! Here: its options and what they come to. [`machine`] decides, with what [`notes`] remembers; [`commands`] and [`page`]
//! are Apache's language; [`crate::sinks::http`] carries it.

pub mod commands;
pub mod machine;
pub mod notes;
pub mod page;
pub mod xml;

use super::http::{HttpSink, Site};
use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::http1::{HttpUrl, check_header};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::Planned;
use crate::secret::file;
use machine::{Door, Evict, Machine};
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "apache",
    story: Story::Found,
    table: Table::Reads,
    summary: "make a balancer of Apache httpd follow the members",
    about: "Adds, enables, weighs, drains and disables members of one balancer of an unmodified Apache httpd 2.4 through \
            its balancer-manager, so that they match the members of a balancer here. After every change, and at every \
            interval, it reads back what Apache has: a restarted Apache is filled again at once. Apache cannot remove \
            members at run time, so those that are gone stay disabled; ProxySet growth=N on its balancer must leave room for \
            all there will ever be. Members that no announcement names are left alone, and so is what an operator has \
            stopped, or has disabled after it had served. Weights from 1 to 100 are taken over as load factors, larger ones \
            count as 100, and a weight of 0 drains. Members are http, https or ajp; an https member needs SSLProxyEngine.",
    options: &[
        Opt {
            name: "url",
            arg: "URL",
            repeat: false,
            default: "",
            help: "The balancer-manager, as http://127.0.0.1/balancer-manager; http only, without a query. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "apache-balancer",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "The name of Apache's balancer, without balancer://; that of --balancer where it is not given.",
        },
        Opt {
            name: "referer",
            arg: "URL",
            repeat: false,
            default: "",
            help: "The Referer of every request. Apache wants its own server name there, which is that of --url unless \
                   UseCanonicalName says otherwise; where it is wrong Apache ignores every change without a word.",
        },
        Opt {
            name: "auth-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "A file with one line user:password, for a balancer-manager that wants basic authentication. As \
                   closed to others as a secret file.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often Apache's members are read back and compared when nothing has changed, at least 100ms.",
        },
        Opt {
            name: "on-evict",
            arg: "drain|disable",
            repeat: false,
            default: "disable",
            help: "What becomes of a member that fell silent or said goodbye: disable takes it out of rotation, after a \
                   goodbye once it has no requests left or 30 s have passed; drain leaves it to the sessions that stick \
                   to it.",
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
    let balancer = section.need("balancer", values::balancer_name)?;
    let own = section.get("apache-balancer", values::balancer_name)?;
    let referer = section.get("referer", referer)?;
    let (login, mark) = file::login(section, "auth-file", ground.groups)?;
    let door = Door {
        target: url.target.clone(),
        referer: referer.unwrap_or_else(|| url.to_string()),
        balancer: own.unwrap_or_else(|| balancer.clone()),
        evict: section.need("on-evict", evict)?,
        every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
    };
    let at = if ground.twin.is_some() { format!("@{url}") } else { String::new() };
    let site = Site { name: format!("apache:{}{at}", door.balancer), role: ROLE.name, balancer, url };
    let service = Box::new(HttpSink::new(site, login, Machine::new(door)));
    Ok(Planned { service, fingerprint: format!("{}{mark}", section.fingerprint()) })
}

fn evict(value: &str) -> Result<Evict, String> {
    match value {
        "drain" => Ok(Evict::Drain),
        "disable" => Ok(Evict::Disable),
        _ => Err("drain or disable".to_owned()),
    }
}

fn referer(value: &str) -> Result<String, String> {
    let fine = value.contains("://") && value.is_ascii() && check_header("Referer", value).is_ok();
    if fine { Ok(value.to_owned()) } else { Err("a url such as http://www.example/".to_owned()) }
}
