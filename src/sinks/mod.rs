//! Sinks: what follows the member table. Each compares what is wanted with what its balancer really has, changes
//! the difference, and reads back; so a balancer's restart heals by itself and no event can be lost.
//!
//! Here: where a member's url leads, and what the table wants of each address. The comparison is [`diff`].

pub mod diff;
#[cfg(feature = "exec")]
pub mod exec;
#[cfg(feature = "haproxy")]
pub mod haproxy;

use self::diff::Goal;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a member's canonical url leads: `scheme://host:port`, the port always written out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// In lower case.
    pub scheme: &'a str,
    /// An IP address (IPv6 without its brackets) or a name.
    pub host: &'a str,
    /// 1 to 65535.
    pub port: u16,
}

impl<'a> Target<'a> {
    /// Takes a canonical url apart; `None` if it is not one.
    #[must_use]
    pub fn of(url: &'a [u8]) -> Option<Target<'a>> {
        let (scheme, rest) = std::str::from_utf8(url).ok()?.split_once("://")?;
        let (host, port) = rest.rsplit_once(':')?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None => host,
        };
        let port = port.parse().ok().filter(|&port| port != 0)?;
        (!scheme.is_empty() && !bare.is_empty()).then_some(Target { scheme, host: bare, port })
    }

    /// The address, if the host is one.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, self.port))
    }
}

/// Why a sink will have nothing to do with a member; shown in `status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It takes addresses only.
    HostName,
    /// It cannot talk to members of this scheme, or not as it is set up.
    Scheme(String),
    /// Not a canonical url.
    Url,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::HostName => f.write_str("refused: host name"),
            Refused::Scheme(scheme) => write!(f, "refused: scheme {scheme}"),
            Refused::Url => f.write_str("refused: not scheme://host:port"),
        }
    }
}

/// What the table wants of a balancer whose servers are addresses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Want {
    /// Each address once, however many urls lead to it.
    pub servers: BTreeMap<SocketAddr, Goal>,
    /// The table has run long enough that an address it does not name is really gone.
    pub settled: bool,
}

impl Want {
    /// Adds one member's goal. An address is up while any of its members is, with the largest weight; of the
    /// others the gentler end wins, a goodbye over silence.
    pub fn add(&mut self, addr: SocketAddr, goal: Goal) {
        self.servers
            .entry(addr)
            .and_modify(|have| {
                *have = match (*have, goal) {
                    (Goal::Up(a), Goal::Up(b)) => Goal::Up(a.max(b)),
                    (up @ Goal::Up(_), _) | (_, up @ Goal::Up(_)) => up,
                    (Goal::Drain, _) | (_, Goal::Drain) => Goal::Drain,
                    (Goal::Out, Goal::Out) => Goal::Out,
                }
            })
            .or_insert(goal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_taken_apart() {
        let v6 = Target::of(b"https://[2001:db8::1]:443").unwrap();
        assert_eq!((v6.scheme, v6.host, v6.port), ("https", "2001:db8::1", 443));
        assert_eq!(v6.addr(), Some("[2001:db8::1]:443".parse().unwrap()));
        assert_eq!(
            Target::of(b"http://10.0.0.5:8080").unwrap().addr(),
            Some("10.0.0.5:8080".parse().unwrap())
        );
        assert_eq!(Target::of(b"http://web1.lan:80").unwrap().addr(), None);
        for bad in [
            "",
            "http",
            "http://",
            "http://a",
            "http://a:",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "://a:1",
        ] {
            assert_eq!(Target::of(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Target::of(b"http://\xff:80"), None);
        assert_eq!(Target::of(b"http://[::1:80"), None);
    }

    #[test]
    fn an_address_is_up_while_any_of_its_members_is() {
        let addr = "10.0.0.5:80".parse().unwrap();
        let goal = |goals: &[Goal]| {
            let mut want = Want::default();
            goals.iter().for_each(|&goal| want.add(addr, goal));
            want.servers[&addr]
        };
        assert_eq!(goal(&[Goal::Up(2), Goal::Out, Goal::Up(7), Goal::Up(1)]), Goal::Up(7));
        assert_eq!(goal(&[Goal::Drain, Goal::Up(0)]), Goal::Up(0));
        assert_eq!(goal(&[Goal::Out, Goal::Drain, Goal::Out]), Goal::Drain);
        assert_eq!(goal(&[Goal::Out]), Goal::Out);
    }
}
