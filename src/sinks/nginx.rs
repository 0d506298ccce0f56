//! The sink `nginx`: the servers of an `upstream` of an unmodified nginx follow a balancer's members, by an included file
//! and a reload.
//!
//! Here: its options and what they come to. All else is [`super::rendered`]'s.

use super::rendered::layout::{Format, Layout};
use super::rendered::machine::Pace;
use super::rendered::service::Rendered;
use super::rendered::{Config, Reload, path};
use crate::config::plan::Ground;
use crate::config::{Error, Section, values};
use crate::http1::HttpUrl;
use crate::options::{Opt, Role, Story, Table};
use crate::reactor::{Care, Planned};
use std::time::Duration;

/// The role and its rows.
pub const ROLE: Role = Role {
    name: "nginx",
    story: Story::Found,
    table: Table::Reads,
    summary: "make an upstream of nginx follow the members",
    about: "Writes the server lines of an nginx upstream into a file of its own, which the configuration includes: \
            upstream web { zone web 64k; include /etc/nginx/web.members; }. After a change the file is replaced as a \
            whole, tested, and nginx is told to reload; if the test fails the last file that passed comes back. Changes that come \
            close together share a reload, and reloads keep a distance, for each leaves workers behind that finish \
            their connections. Without members nginx answers 502. A member with weight 0 is marked down, one that said \
            goodbye or fell silent is left out. Members must be IP addresses. What has passed the test and the reload \
            is kept beside the file, in .NAME.good: a restart of beacond does not reload nginx for nothing. Let \
            beacond write the file once before nginx is started with it.",
    options: &[
        Opt {
            name: "file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "The file to include, by its full path. It belongs to beacond alone: changes in it are overwritten, and a \
                   file that does not look like its own is left alone and complained of. beacond must be able to write its folder. Required.",
        },
        Opt {
            name: "balancer",
            arg: "NAME",
            repeat: false,
            default: "default",
            help: "The balancer whose members are followed. A leading balancer:// is dropped.",
        },
        Opt {
            name: "test",
            arg: "COMMAND",
            repeat: false,
            default: "nginx -t",
            help: "The command that tests nginx's configuration with the new file in it, split on blanks; \"...\" keeps \
                   blanks together. No shell reads it. It may take 30 s. BEACOND_FILE and BEACOND_BALANCER are in its \
                   environment.",
        },
        Opt {
            name: "reload",
            arg: "COMMAND|signal:PIDFILE",
            repeat: false,
            default: "signal:/run/nginx.pid",
            help: "How nginx is told: by HUP to the process whose number is in a file, or by a command, as for --test. \
                   beacond needs the right to signal nginx, or to run that command.",
        },
        Opt {
            name: "min-gap",
            arg: "TIME",
            repeat: false,
            default: "5",
            help: "At least this long between two reloads, whatever changes.",
        },
        Opt {
            name: "coalesce",
            arg: "TIME",
            repeat: false,
            default: "200ms",
            help: "How long a first change waits for others to share its reload.",
        },
        Opt {
            name: "server-options",
            arg: "TEXT",
            repeat: false,
            default: "",
            help: "Parameters for every server line, such as max_fails=1 fail_timeout=5s.",
        },
        Opt {
            name: "tls",
            arg: "",
            repeat: false,
            default: "",
            help: "The upstream is used by proxy_pass https://: its members are those with https urls, which are refused \
                   otherwise.",
        },
        Opt {
            name: "generation-file",
            arg: "FILE",
            repeat: false,
            default: "",
            help: "Also write what makes nginx answer with the generation that it has loaded, to be included by a location: \
                   location = /generation { include FILE; }. The same number stands in the file of members.",
        },
        Opt {
            name: "verify",
            arg: "URL",
            repeat: false,
            default: "",
            help: "After a reload, ask this http:// URL of nginx until it answers with the new generation; a reload that has \
                   not taken after 5 s is repeated. Needs --generation-file.",
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
    let generation = section.get("generation-file", path)?;
    let verify = section.get("verify", |value| HttpUrl::parse(value).map_err(str::to_owned))?;
    if verify.is_some() && generation.is_none() {
        return Err(section.wrong("verify", "--generation-file beside it"));
    }
    let file = section.need("file", path)?;
    if generation.as_ref() == Some(&file) {
        return Err(section.wrong("generation-file", "another file than --file"));
    }
    Ok(Config {
        role: ROLE.name,
        file,
        layout: Layout {
            format: Format::Nginx,
            service: balancer.clone(),
            balancer: balancer.clone(),
            labels: Vec::new(),
            options: section.get("server-options", server_options)?.unwrap_or_default(),
            tls: section.flag("tls"),
        },
        balancer,
        care: Care::SERVED,
        pace: Pace {
            every: section.need("every", values::duration_from(Duration::from_millis(100)))?,
            coalesce: section.need("coalesce", values::duration)?,
            min_gap: section.need("min-gap", values::duration)?,
        },
        generation,
        test: Some(section.need("test", values::command)?),
        reload: Some(section.need("reload", reload)?),
        verify,
    })
}

fn reload(value: &str) -> Result<Reload, String> {
    match value.strip_prefix("signal:") {
        Some(file) => path(file).map(Reload::Hangup),
        None => values::command(value).map(Reload::Command),
    }
}

/// Words for a server line: none that would end it, and none for what we decide ourselves.
fn server_options(value: &str) -> Result<String, String> {
    let legal = |b: u8| (b.is_ascii_graphic() && !b";{}\\\"'#$".contains(&b)) || b == b' ' || b == b'\t';
    if !value.bytes().all(legal) {
        return Err("parameters of nginx's server, without ; { } # $ \\ and quotes".to_owned());
    }
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let name = |word: &&&str| OURS.contains(&word.split('=').next().unwrap_or_default());
    match words.iter().find(name) {
        Some(word) => {
            Err(format!("no '{word}' among the parameters: beacond sets that itself, or it is for names"))
        }
        None => Ok(words.join(" ")),
    }
}

/// `backup` for all would leave the upstream without a server; `resolve` and `service` are for names.
const OURS: [&str; 5] = ["backup", "down", "resolve", "service", "weight"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_end_a_line() {
        assert_eq!(
            server_options(" max_fails=1   fail_timeout=5s "),
            Ok("max_fails=1 fail_timeout=5s".to_owned())
        );
        for bad in ["a;b", "a}", "{", "a\nb", "#", "weight=3", "down", "backup", "\"x\"", "$host"] {
            assert!(server_options(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ways_to_reload() {
        assert_eq!(reload("signal:/run/n.pid"), Ok(Reload::Hangup("/run/n.pid".into())));
        assert_eq!(
            reload("nginx -s reload"),
            Ok(Reload::Command(vec!["nginx".into(), "-s".into(), "reload".into()]))
        );
        assert!(reload("signal:").is_err() && reload("signal:run/").is_err() && reload("").is_err());
    }
}
