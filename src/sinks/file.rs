//! The sink `file`: a file follows a balancer's members, in the format that another program reads.
//!
//! Here: its options and what they come to. All else is [`super::rendered`]'s.

use super::rendered::layout::{Format, Layout};
use super::rendered::machine::Pace;
use super::rendered::service::Rendered;
use super::rendered::{Config, Reload, path};
use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::{Care, Planned};
use crate::sorted::Sorted;
use crate::url;
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "file",
    story: Story::Found,
    table: Table::Reads,
    summary: "keep a file that lists the members",
    about: "Writes the members of a balancer into a file, as another program reads them: Prometheus (file_sd_configs), \
            Envoy (EDS from a path), Traefik (file provider), dnsmasq (hostsdir), or scripts. The file is replaced as a \
            whole, at once after a change and never otherwise. After a start, members that it has and that have not been \
            heard yet stay in it for one timeout.\n\n\
            prometheus: one target group a member, with the scheme, --label and __meta_beacond_balancer, \
            __meta_beacond_url and __meta_beacond_weight as labels.\n\n\
            envoy: a ClusterLoadAssignment; members with weight 0, or that said goodbye, are DRAINING. Addresses only.\n\n\
            traefik: a service; JSON, which Traefik takes as YAML: give it a name that ends in .yml. A weight other than 1 \
            is written where a member has one, which Traefik 3 knows and 2 does not; members with weight 0 are left \
            out.\n\n\
            hosts: a line for each address, with one name for all. Addresses only; members with weight 0 are left out.\n\n\
            json: an object with balancer and members; each of those has url, scheme, host, port, weight and state, which \
            is up or draining.\n\n\
            lines: URL and weight of each member that is up, separated by a blank.\n\n\
            Who fell silent is left out of all; who said goodbye, too, but in envoy and json, where it is draining until \
            it is forgotten.",
    options: &[
        Opt {
            name: "file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "The file, by its full path. It belongs to beacond alone: changes in it are overwritten, and a file that \
                   does not look like its own is left alone and complained of. beacond must be able to write its folder. Required.",
        },
        Opt {
            name: "format",
            arg: "FORMAT",
            repeat: false,
            default: "",
            help: "prometheus, envoy, traefik, hosts, json or lines. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "service",
            arg: "NAME",
            repeat: false,
            default: "",
            help: "What the members together are called in the file: the cluster of envoy, the service of traefik, the name \
                   of hosts. Without it the balancer's name.",
        },
        Opt {
            name: "label",
            arg: "NAME=VALUE",
            repeat: true,
            default: "",
            help: "A label for every target of prometheus.",
        },
        Opt {
            name: "tls",
            arg: "",
            repeat: false,
            default: "",
            help: "For envoy: the cluster talks TLS; its members are those with https urls, which are refused otherwise.",
        },
        Opt {
            name: "then",
            arg: "COMMAND",
            repeat: false,
            default: "",
            help: "A command to run after each change, split on blanks; \"...\" keeps blanks together. No shell reads it. \
                   It may take 30 s, and is run again later if it fails; what it accepted is kept in .NAME.good beside \
                   the file. BEACOND_FILE and BEACOND_BALANCER are in its environment.",
        },
        Opt {
            name: "min-gap",
            arg: "TIME",
            repeat: false,
            default: "0",
            help: "At least this long between two changes of the file, or two runs of the command.",
        },
        Opt {
            name: "every",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "How often the file is looked at for changes by somebody else, at least 100ms.",
        },
    ],
};

/// Reads the section: a sink ready to start.
///
/// # Errors
/// The first option that is wrong.
pub fn plan(section: &Section, _: &mut Ground<'_>) -> Result<Planned, Error> {
    let config = config(section)?;
    Ok(Planned { service: Box::new(Rendered::new(config)), fingerprint: section.fingerprint() })
}

fn config(section: &Section) -> Result<Config, Error> {
    let balancer = section.need("balancer", values::balancer_name)?;
    let format = section.need("format", format)?;
    let only = |name: &str, formats: &[Format]| match section.given(name) && !formats.contains(&format) {
        true => Err(section.wrong(name, "it only with a format that has it")),
        false => Ok(()),
    };
    only("service", &[Format::Envoy, Format::Traefik, Format::Hosts])?;
    only("label", &[Format::Prometheus])?;
    only("tls", &[Format::Envoy])?;
    let service = section.get("service", values::text)?.unwrap_or_else(|| balancer.clone());
    if format == Format::Hosts && url::host_name(&service).is_none() {
        return Err(section.wrong("service", "a host name"));
    }
    let labels = section.all("label", label)?;
    let names: Sorted<&str, ()> = labels.iter().map(|(name, _)| (name.as_str(), ())).collect();
    if names.len() < labels.len() {
        return Err(section.wrong("label", "each name once"));
    }
    Ok(Config {
        role: ROLE.name,
        file: section.need("file", path)?,
        layout: Layout {
            format,
            balancer: balancer.clone(),
            service,
            labels,
            options: String::new(),
            tls: section.flag("tls"),
        },
        balancer,
        care: Care::SHOWN,
        pace: Pace {
            every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
            coalesce: Duration::ZERO,
            min_gap: section.need("min-gap", values::duration)?,
        },
        generation: None,
        test: None,
        reload: section.get("then", values::command)?.map(Reload::Command),
        verify: None,
    })
}

fn format(value: &str) -> Result<Format, String> {
    Ok(match value {
        "prometheus" => Format::Prometheus,
        "envoy" => Format::Envoy,
        "traefik" => Format::Traefik,
        "hosts" => Format::Hosts,
        "json" => Format::Json,
        "lines" => Format::Lines,
        _ => return Err("prometheus, envoy, traefik, hosts, json or lines".to_owned()),
    })
}

/// A label by Prometheus's rules, and none that is ours to set.
fn label(value: &str) -> Result<(String, String), String> {
    let wanted = || "NAME=VALUE, the name of letters, digits and _".to_owned();
    let (name, text) = value.split_once('=').ok_or_else(wanted)?;
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !legal || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return Err(wanted());
    }
    let ours = name.starts_with("__meta_beacond_") || matches!(name, "__address__" | "__scheme__");
    if ours {
        Err("another name: beacond sets that itself".to_owned())
    } else {
        Ok((name.to_owned(), text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_prometheus_labels() {
        assert_eq!(label("zone=a=b"), Ok(("zone".to_owned(), "a=b".to_owned())));
        assert_eq!(label("_x="), Ok(("_x".to_owned(), String::new())));
        for bad in ["", "zone", "=x", "1a=x", "a-b=x", "__address__=x", "__meta_beacond_url=x", "\u{e9}=x"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }
}
