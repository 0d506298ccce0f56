//! From a configuration to the services that run: the one list of services.
//!
//! Reads the files that sections name; opens no socket and starts nothing, so that `check` and a reload can do all
//! of it and throw it away.

use crate::beacon::admission::Admission;
use crate::beacon::settings;
use crate::config::plan::{self, Balancer, Ground};
use crate::config::values::HostPort;
use crate::config::{Config, Error, Section};
use crate::members;
use crate::options::Table;
use crate::reactor::{Plan, Planned};
use std::net::{IpAddr, SocketAddr};

/// What a configuration comes to.
pub struct Assembly {
    /// The services of its sections, and its balancers.
    pub plan: Plan,
    /// For each balancer, the url rules of its writers: what the state file's members must pass again.
    pub admissions: Vec<(String, Admission)>,
    /// What is allowed and most likely not meant, one line each.
    pub warnings: Vec<String>,
}

/// Finds the address of a name to listen at.
///
/// # Errors
/// Why there is none.
pub type Resolve<'a> = dyn FnMut(&str) -> Result<IpAddr, String> + 'a;

/// Makes services of all sections, for a process in `groups`: a secret file may be readable by one of them.
///
/// # Errors
/// The first value or file that is wrong.
pub fn assemble(config: &Config, groups: &[u32], resolve: &mut Resolve<'_>) -> Result<Assembly, Error> {
    let facts = plan::plan(&config.roles)?;
    let mut assembly = Assembly {
        plan: Plan { balancers: facts.balancers.iter().map(policy).collect(), ..Plan::default() },
        admissions: Vec::new(),
        warnings: facts.warnings,
    };
    for (n, (section, address)) in config.roles.iter().zip(facts.addresses).enumerate() {
        let address = address.map(|at| find(section, &at, resolve)).transpose()?;
        let twin = plan::twin(&config.roles, n);
        let alike = config.roles.iter().filter(|other| other.role().name == section.role().name).count();
        let mut ground = Ground { address, groups, twin, alike, warnings: &mut assembly.warnings };
        let planned = service(section, &mut ground)?;
        if section.role().option("listen").is_some() {
            let place = |spec| (spec, section.place_of("listen"));
            assembly.plan.places.extend(planned.service.sockets().into_iter().map(place));
        }
        assembly.plan.services.push(planned);
        if section.role().table == Table::Writes {
            let balancer = section.need("balancer", crate::config::values::balancer_name)?;
            assembly.admissions.push((balancer, settings::admission(section)?));
        }
    }
    Ok(assembly)
}

/// Reads a section and opens its files: a service ready to start.
type Make = fn(&Section, &mut Ground<'_>) -> Result<Planned, Error>;

/// The services that sections can ask for.
const SERVICES: &[(&str, Make)] = &[
    #[cfg(feature = "listen")]
    ("listen", crate::beacon::listen::plan),
    #[cfg(feature = "announce")]
    ("announce", crate::beacon::announce::plan),
    #[cfg(feature = "haproxy")]
    ("haproxy", crate::sinks::haproxy::plan),
    #[cfg(feature = "apache")]
    ("apache", crate::sinks::apache::plan),
    #[cfg(feature = "caddy")]
    ("caddy", crate::sinks::caddy::plan),
    #[cfg(feature = "nginx")]
    ("nginx", crate::sinks::nginx::plan),
    #[cfg(feature = "file")]
    ("file", crate::sinks::file::plan),
    #[cfg(feature = "etcd")]
    ("etcd", crate::sinks::etcd::plan),
    #[cfg(feature = "etcd")]
    ("etcd-watch", crate::sinks::etcd::watch::plan),
    #[cfg(feature = "exec")]
    ("exec", crate::sinks::exec::plan),
    #[cfg(feature = "proxy")]
    ("proxy", crate::proxy::plan),
];

fn service(section: &Section, ground: &mut Ground<'_>) -> Result<Planned, Error> {
    let name = section.role().name;
    let make = SERVICES.iter().find(|(known, _)| *known == name).map(|(_, make)| make);
    make.ok_or_else(|| Error::text(format!("{}: {name} is not in this build", section.at())))?(
        section, ground,
    )
}

fn find(section: &Section, at: &HostPort, resolve: &mut Resolve<'_>) -> Result<SocketAddr, Error> {
    let host = at.host.as_deref().unwrap_or_default();
    let ip = match at.ip() {
        Some(ip) => ip,
        None => resolve(host).map_err(|why| {
            Error::world(format!("{}: cannot resolve {host}: {why}", section.place_of("listen")))
        })?,
    };
    Ok(SocketAddr::new(ip, at.port.unwrap_or(plan::LISTEN_PORT)))
}

fn policy(balancer: &Balancer) -> (String, members::Policy) {
    (balancer.name.clone(), balancer.policy)
}
