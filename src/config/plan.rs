//! What several sections say together: the balancers and their policies, the addresses that one section takes from
//! another, and what does not fit. Decided over all sections before anything is opened; nothing here opens anything.

use super::section::Section;
use super::values::{self, HostPort, balancer_name};
use super::{Error, Origin, Shown};
use crate::members::{MAX_MEMBERS, Policy, WhenDeaf};
use crate::options::Table;
use std::net::SocketAddr;
use std::time::Duration;

/// The host that is bound when none is said: every IPv4 address.
const ANY_HOST: &str = "0.0.0.0";
/// The port that `listen` binds when none is said.
pub const LISTEN_PORT: u16 = 5555;

/// What all sections together come to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The balancers that somebody writes, in the order in which they are first named.
    pub balancers: Vec<Balancer>,
    /// For each section, in order, the complete address it listens at; `None` if it does not.
    pub addresses: Vec<Option<HostPort>>,
    /// For each section, in order, where the option was written that lends it parts of its address.
    pub lenders: Vec<Option<Origin>>,
    /// What is allowed and most likely not meant, one line each.
    pub warnings: Vec<String>,
}

/// A balancer that somebody writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balancer {
    /// Its name, bare.
    pub name: String,
    /// What all its writers agree on.
    pub policy: Policy,
}

/// The value of `when-deaf`.
///
/// # Errors
/// What is wanted.
pub fn when_deaf(value: &str) -> Result<WhenDeaf, String> {
    match value.split_once(':') {
        None if value == "hold" => Ok(WhenDeaf::Hold),
        None if value == "evict" => Ok(WhenDeaf::Evict),
        Some(("hold", time)) => values::duration(time).map(WhenDeaf::HoldFor),
        _ => Err("hold, hold:TIME or evict".to_owned()),
    }
}

/// What a section needs besides its own options.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Where it listens, if it does.
    pub address: Option<SocketAddr>,
    /// The groups of the process: a secret file may be readable by one of them.
    pub groups: &'a [u32],
    /// Which one it is, from 1, of several sections that drive something of the same name, each in another way.
    pub twin: Option<usize>,
    /// How many sections there are of its role, itself included: what a process has once is divided among them.
    pub alike: usize,
    /// What is allowed and most likely not meant, one line each: the section adds its own.
    pub warnings: &'a mut Vec<String>,
}

/// Which one the `n`th section is, from 1, of several that have its role and its backend, or its program.
#[must_use]
pub fn twin(roles: &[Section], n: usize) -> Option<usize> {
    let target = |s: &Section| {
        let name = match s.role().name {
            "haproxy" => s.text("backend"),
            "apache" => s.text("apache-balancer").or(s.text("balancer")),
            "caddy" => s.text("id"),
            "etcd" => s.text("balancer"),
            "exec" => {
                let command = s.get("command", values::command).ok()??;
                let balancer = s.need("balancer", balancer_name).ok()?;
                return Some(("exec", format!("{} {balancer}", values::program(&command))));
            }
            _ => None,
        };
        name.map(|name| (s.role().name, name.to_owned()))
    };
    let own = roles.get(n).and_then(target)?;
    let alike = |roles: &[Section]| roles.iter().filter(|s| target(s).as_ref() == Some(&own)).count();
    (alike(roles) > 1).then(|| alike(roles.get(..=n).unwrap_or_default()))
}

/// Resolves what needs more than one section.
///
/// # Errors
/// A value that is wrong, two writers of one balancer that disagree, two sections that own the same thing.
pub fn plan(roles: &[Section]) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let mut first: Vec<&Section> = Vec::new(); // the first writer of each balancer
    for section in roles.iter().filter(|s| s.role().table == Table::Writes) {
        let name = section.need("balancer", balancer_name)?;
        let policy = policy(section)?;
        match plan.balancers.iter().position(|b| b.name == name) {
            Some(known) => join(&mut plan.balancers[known].policy, policy, first[known], section)?,
            None => {
                plan.balancers.push(Balancer { name, policy });
                first.push(section);
            }
        }
    }
    for section in roles {
        let (address, lender) = match section.role().name {
            "listen" => listen_address(section, roles).map(|(at, lender)| (Some(at), lender))?,
            "proxy" => (Some(proxy_address(section)?), None),
            _ => (None, None),
        };
        plan.addresses.push(address);
        plan.lenders.push(lender);
    }
    distinct(roles, &plan.addresses)?;
    plan.warnings = lonely(roles, &plan.balancers, &first)?;
    Ok(plan)
}

/// Makes one policy of `ours`, which `first` began, and `other`, which `section` states.
fn join(ours: &mut Policy, other: Policy, first: &Section, section: &Section) -> Result<(), Error> {
    let differing = [
        ("max-members", ours.max_members != other.max_members),
        ("forget", ours.forget != other.forget),
        ("when-deaf", ours.when_deaf != other.when_deaf),
        ("keep-last", ours.keep_last != other.keep_last),
    ];
    // A role that has no such option has no opinion.
    let both = |name: &str| [first, section].iter().all(|s| s.role().option(name).is_some());
    if let Some((name, _)) = differing.iter().find(|(name, differs)| *differs && both(name)) {
        let value = first.text(name).filter(|t| !t.is_empty());
        let balancer = section.text("balancer").unwrap_or_default();
        return Err(section.wrong(
            name,
            &format!(
                "what the balancer '{}' has at {}{}",
                Shown(balancer),
                first.place_of(name),
                value.map_or_else(String::new, |v| format!(" ({})", Shown(v)))
            ),
        ));
    }
    if first.role().option("when-deaf").is_none() {
        (ours.when_deaf, ours.keep_last) = (other.when_deaf, other.keep_last);
    }
    let never = ours.timeout.is_zero() || other.timeout.is_zero();
    ours.timeout = if never { Duration::ZERO } else { ours.timeout.max(other.timeout) };
    ours.max_skew = ours.max_skew.max(other.max_skew);
    Ok(())
}

/// What a section says of its balancer; what its role has no option for is as `listen` has it by default.
fn policy(section: &Section) -> Result<Policy, Error> {
    let has = |name: &str| section.role().option(name).is_some();
    Ok(Policy {
        max_members: section.need("max-members", max_members)?,
        forget: section.need("forget", values::duration)?,
        keep_last: has("keep-last") && section.flag("keep-last"),
        when_deaf: if has("when-deaf") { section.need("when-deaf", when_deaf)? } else { WhenDeaf::Hold },
        timeout: section.need("timeout", values::duration)?,
        max_skew: if has("max-skew") {
            section.need("max-skew", values::whole_seconds)?
        } else {
            Duration::from_secs(30)
        },
    })
}

fn max_members(value: &str) -> Result<usize, String> {
    let count = values::count(value).ok().filter(|n| *n <= MAX_MEMBERS);
    count.ok_or_else(|| format!("a whole number from 1 to {MAX_MEMBERS}"))
}

/// Where a `listen` section receives. A part that it leaves out is that of the first proxy that follows its balancer,
/// for UDP and TCP ports do not collide, or else the default.
fn listen_address(section: &Section, roles: &[Section]) -> Result<(HostPort, Option<Origin>), Error> {
    let said = section.get("listen", values::addr)?.unwrap_or_default();
    if said.host.is_some() && said.port.is_some() {
        return Ok((said, None));
    }
    let balancer = section.need("balancer", balancer_name)?;
    let mut lender = None;
    let mut beside = HostPort { host: Some(ANY_HOST.to_owned()), port: Some(LISTEN_PORT) };
    for proxy in roles.iter().filter(|s| s.role().name == "proxy") {
        if followed(proxy)?.iter().any(|(name, _)| *name == balancer) {
            beside = proxy_address(proxy)?;
            lender = proxy.each("listen").next().map(|given| given.origin.clone());
            break;
        }
    }
    Ok((HostPort { host: said.host.or(beside.host), port: said.port.or(beside.port) }, lender))
}

/// Where a `proxy` section takes connections: the host has a default, a port must be said.
fn proxy_address(section: &Section) -> Result<HostPort, Error> {
    let said = section.need("listen", values::addr)?;
    if said.port.is_none() {
        return Err(section.wrong("listen", "a port too, such as :443"));
    }
    Ok(HostPort { host: Some(said.host.unwrap_or_else(|| ANY_HOST.to_owned())), ..said })
}

/// The balancers that a section follows, each with the place that says so: those that its routes lead to, if it has
/// any.
fn followed(section: &Section) -> Result<Vec<(String, String)>, Error> {
    let routed = section.role().option("route").is_some();
    let routes: Vec<_> = if routed { section.each("route").collect() } else { Vec::new() };
    if routes.is_empty() {
        let name = section.need("balancer", balancer_name)?;
        return Ok(vec![(name, section.place_of("balancer"))]);
    }
    let mut names: Vec<(String, String)> = Vec::new();
    for route in routes {
        // What is wrong with a route is said by who reads all of it.
        let target = route.text.split_once('=').and_then(|(_, target)| target.strip_prefix("balancer:"));
        let name = target.and_then(|name| balancer_name(name).ok());
        if let Some(name) = name.filter(|name| !names.iter().any(|(known, _)| known == name)) {
            names.push((name, section.place_at(route)));
        }
    }
    Ok(names)
}

/// Refuses two sections that would own the same socket or file, or the same backend of the same HAProxy.
fn distinct(roles: &[Section], addresses: &[Option<HostPort>]) -> Result<(), Error> {
    for (i, section) in roles.iter().enumerate() {
        for (j, earlier) in roles.iter().enumerate().take(i) {
            let address = |n: usize| addresses.get(n).and_then(Option::as_ref).filter(|a| a.port != Some(0));
            // Of one role, and so of one protocol: UDP and TCP ports do not collide.
            let alike = section.role().name == earlier.role().name;
            if alike && address(i).is_some() && address(i) == address(j) {
                let wanted = format!("another address than {}", earlier.place_of("listen"));
                return Err(section.wrong("listen", &wanted));
            }
            let writes = |s: &Section| matches!(s.role().name, "nginx" | "file");
            if writes(section) && writes(earlier) && section.text("file") == earlier.text("file") {
                let wanted = format!("another file than {}", earlier.place_of("file"));
                return Err(section.wrong("file", &wanted));
            }
            let both_haproxy = section.role().name == "haproxy" && earlier.role().name == "haproxy";
            let same = |name| section.text(name) == earlier.text(name);
            if both_haproxy && same("socket") && same("backend") {
                let wanted = format!("another backend or socket than {}", earlier.place_of("backend"));
                return Err(section.wrong("backend", &wanted));
            }
            apart_in_etcd(section, earlier)?;
        }
    }
    Ok(())
}

/// Refuses a sink and a watch of the same keys in etcd, for a member would keep itself alive; two sinks; and two watches
/// of one balancer.
fn apart_in_etcd<'a>(section: &'a Section, earlier: &'a Section) -> Result<(), Error> {
    let plain = |text: &'a str| text.trim_start_matches("balancer://").trim_end_matches('/');
    let same = |name| section.text(name).map(plain) == earlier.text(name).map(plain);
    let names = [section.role().name, earlier.role().name];
    let watches = names.iter().all(|name| *name == "etcd-watch");
    if watches && same("balancer") {
        // Each would take out the other's members.
        let wanted = format!("another balancer than {}", earlier.place_of("balancer"));
        return Err(section.wrong("balancer", &wanted));
    }
    let in_etcd = names.iter().all(|name| name.starts_with("etcd"));
    if in_etcd
        && ["balancer", "prefix", "cluster"].into_iter().all(same)
        && (names[0] != names[1] || same("endpoint"))
    {
        let wanted = format!("another cluster or prefix than {}", earlier.place_of("cluster"));
        return Err(section.wrong("cluster", &wanted));
    }
    Ok(())
}

/// Warnings for balancers that are only written or only read.
fn lonely(roles: &[Section], balancers: &[Balancer], first: &[&Section]) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let mut read = Vec::new();
    for section in roles.iter().filter(|s| s.role().table == Table::Reads) {
        for (name, place) in followed(section)? {
            if !balancers.iter().any(|b| b.name == name) {
                warnings.push(format!("{place}: nothing brings members into the balancer '{name}'"));
            }
            read.push(name);
        }
    }
    for (balancer, section) in balancers.iter().zip(first).filter(|(b, _)| !read.contains(&b.name)) {
        let (place, name) = (section.place_of("balancer"), &balancer.name);
        warnings.push(format!("{place}: nothing follows the balancer '{name}': its members are only logged"));
    }
    Ok(warnings)
}
