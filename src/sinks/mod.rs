//! Sinks: what follows the member table. Each compares what is wanted with what its balancer really has,
//! changes the difference, and reads back; so a balancer's restart heals by itself and no event can be lost.
//!
//! Here: where a member's url leads, and what the table wants of each server. The comparison is [`diff`]; [`follow`]
//! carries the table over to a sink, and what the sink makes of it back to `status`.

#[cfg(feature = "apache")]
pub mod apache;
#[cfg(feature = "caddy")]
pub mod caddy;
pub mod diff;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "file")]
pub mod file;
pub mod follow;
#[cfg(feature = "haproxy")]
pub mod haproxy;
#[cfg(any(feature = "apache", feature = "caddy"))]
pub mod http;
pub mod machine;
#[cfg(feature = "nginx")]
pub mod nginx;
#[cfg(any(feature = "nginx", feature = "file"))]
pub mod rendered;
pub mod tried;
pub mod trouble;

use self::diff::Goal;
use crate::clock::micros;
use crate::sorted::{Sorted, sort};
use crate::url::{Host, Url};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The address that a member's url leads to, for sinks that take nothing else.
///
/// # Errors
/// The host is a name.
pub fn address(url: &Url) -> Result<SocketAddr, Refused> {
    match url.host() {
        Host::Ip(ip) => Ok(SocketAddr::new(ip, url.port())),
        Host::Name(_) => Err(Refused::HostName),
    }
}

/// Why a sink will have nothing to do with a member; shown in `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It takes addresses only.
    HostName,
    /// It cannot talk to members of this scheme, or not as it is set up.
    Scheme(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::HostName => f.write_str("refused: host name"),
            Refused::Scheme(scheme) => write!(f, "refused: scheme {scheme}"),
        }
    }
}

/// How long to leave a balancer alone that has failed for the `repeats`th time in a row: 0.25 to 30 s, ever longer, and
/// never the same for two sinks, as `random` has it.
#[must_use]
pub fn back_off(repeats: u32, random: u64) -> Duration {
    let longest = (FIRST_BACK_OFF * 2_u32.saturating_pow(repeats.min(10))).min(LONGEST_BACK_OFF);
    let half = micros(longest) / 2;
    Duration::from_micros(half + random % half)
}

const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);

/// What the table wants of a balancer that knows its servers by `K`: an address, or a url where names will do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want<K> {
    /// Each server once, however many urls lead to it.
    pub servers: Sorted<K, Goal>,
    /// The table has run long enough that an address it does not name is really gone.
    pub settled: bool,
}

impl<K> Default for Want<K> {
    fn default() -> Want<K> {
        Want { servers: Sorted::default(), settled: false }
    }
}

impl<K: Ord> Want<K> {
    /// What members at these servers come to. A server is up while any of its members is, with the largest
    /// weight; of the others the gentler end wins, a goodbye over silence.
    #[must_use]
    pub fn of(mut goals: Vec<(K, Goal)>) -> Want<K> {
        sort(&mut goals, Ord::cmp);
        Want { servers: goals.into_iter().collect(), settled: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_names_are_refused() {
        let of = |url: &str| address(&Url::parse(url.as_bytes()).unwrap());
        assert_eq!(of("https://[2001:db8::1]:443"), Ok("[2001:db8::1]:443".parse().unwrap()));
        assert_eq!(of("http://10.0.0.5:8080"), Ok("10.0.0.5:8080".parse().unwrap()));
        assert_eq!(of("http://web1.lan:80").unwrap_err().to_string(), "refused: host name");
        assert_eq!(Refused::Scheme("https".to_owned()).to_string(), "refused: scheme https");
    }

    #[test]
    fn an_address_is_up_while_any_of_its_members_is() {
        let addr: SocketAddr = "10.0.0.5:80".parse().unwrap();
        let goal = |goals: &[Goal]| {
            let want = Want::of(goals.iter().map(|&goal| (addr, goal)).collect());
            want.servers.get(&addr).copied()
        };
        assert_eq!(goal(&[Goal::Up(2), Goal::Out, Goal::Up(7), Goal::Up(1)]), Some(Goal::Up(7)));
        assert_eq!(goal(&[Goal::Drain, Goal::Up(0)]), Some(Goal::Up(0)));
        assert_eq!(goal(&[Goal::Out, Goal::Drain, Goal::Out]), Some(Goal::Drain));
        assert_eq!(goal(&[Goal::Out]), Some(Goal::Out));
    }
}
