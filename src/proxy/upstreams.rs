//! The names of fixed targets, and the addresses that they have now. Pure: who looks a name up is the service's.
//!
//! A name is looked up when it is first needed, and again once its addresses are older than `--resolve-interval`; until
//! the new ones are there the old ones serve. Sessions wait for the first ones only.

use crate::clock::Mono;
use std::net::SocketAddr;
use std::time::Duration;

/// All names.
#[derive(Debug, Default)]
pub struct Upstreams {
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    /// When its addresses were found.
    at: Mono,
    looking: bool,
    /// When it was last asked for.
    used: Mono,
    /// Sessions that wait for its first addresses.
    waiting: Vec<(usize, u64)>,
}

/// What is known of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Known {
    /// Its addresses; whether they are to be looked up again under this number.
    Addresses(Vec<SocketAddr>, Option<usize>),
    /// Nothing yet: the session waits; whether it is to be looked up under this number, or is being.
    Nothing(Option<usize>),
    /// There are too many names.
    Full,
}

/// The most names. Configured targets are few; it is answers of `--auth` that may name any number.
const NAMES: usize = 256;

impl Upstreams {
    /// The addresses of a host. `session` waits if there are none yet.
    pub fn find(
        &mut self,
        host: &str,
        port: u16,
        session: (usize, u64),
        stale: Duration,
        now: Mono,
    ) -> Known {
        let known = self.names.iter().position(|name| name.host == host && name.port == port);
        let Some(at) = known.or_else(|| self.enter(host, port)) else { return Known::Full };
        let name = &mut self.names[at];
        name.used = now;
        if name.addresses.is_empty() {
            name.waiting.push(session);
            let look = !std::mem::replace(&mut name.looking, true);
            return Known::Nothing(look.then_some(at));
        }
        let old = now.since(name.at) >= stale && !name.looking;
        name.looking |= old;
        Known::Addresses(name.addresses.clone(), old.then_some(at))
    }

    /// A look-up ended. Sessions that waited for it, and what they are to use.
    pub fn found(
        &mut self,
        at: usize,
        addresses: Vec<SocketAddr>,
        now: Mono,
    ) -> (Vec<(usize, u64)>, &[SocketAddr]) {
        let Some(name) = self.names.get_mut(at) else { return (Vec::new(), &[]) };
        name.looking = false;
        if !addresses.is_empty() {
            name.addresses = addresses;
        }
        // After a failure too: it is asked again an interval later, and the old addresses serve meanwhile.
        name.at = now;
        (std::mem::take(&mut name.waiting), &name.addresses)
    }

    /// The host and port of a number.
    #[must_use]
    pub fn name(&self, at: usize) -> Option<(&str, u16)> {
        self.names.get(at).map(|name| (name.host.as_str(), name.port))
    }

    /// Makes a place for a name: a new one, or that of the name which nobody has asked for the longest.
    fn enter(&mut self, host: &str, port: u16) -> Option<usize> {
        let name = Name {
            host: host.to_owned(),
            port,
            addresses: Vec::new(),
            at: Mono::ZERO,
            looking: false,
            used: Mono::ZERO,
            waiting: Vec::new(),
        };
        if self.names.len() < NAMES {
            self.names.push(name);
            return Some(self.names.len() - 1);
        }
        let idle = self.names.iter().enumerate().filter(|(_, name)| !name.looking);
        let at = idle.min_by_key(|(_, name)| name.used).map(|(at, _)| at)?;
        self.names[at] = name;
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn second(n: u64) -> Mono {
        Mono(n * 1_000_000)
    }

    #[test]
    fn looked_up_once_and_again_when_stale() {
        let address: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let mut names = Upstreams::default();
        assert_eq!(names.find("a", 80, (1, 10), MINUTE, second(0)), Known::Nothing(Some(0)));
        assert_eq!(names.find("a", 80, (2, 11), MINUTE, second(0)), Known::Nothing(None));
        assert_eq!(names.name(0), Some(("a", 80)));
        let (waiting, found) = names.found(0, vec![address], second(1));
        assert_eq!((waiting, found), (vec![(1, 10), (2, 11)], &[address][..]));
        let fresh = names.find("a", 80, (3, 12), MINUTE, second(60));
        assert_eq!(fresh, Known::Addresses(vec![address], None));
        let stale = names.find("a", 80, (3, 12), MINUTE, second(61));
        assert_eq!(stale, Known::Addresses(vec![address], Some(0)));
        assert_eq!(names.find("a", 80, (3, 12), MINUTE, second(62)), Known::Addresses(vec![address], None));
        // A failed look-up leaves the old addresses in use.
        assert_eq!(names.found(0, Vec::new(), second(63)).1, &[address]);
        assert_eq!(names.find("a", 80, (3, 12), MINUTE, second(64)), Known::Addresses(vec![address], None));
    }

    #[test]
    fn names_are_bounded_and_the_longest_unused_yields() {
        let mut names = Upstreams::default();
        for n in 0..NAMES {
            let at = u64::try_from(n).unwrap();
            assert_eq!(names.find(&format!("h{n}"), 1, (n, 0), MINUTE, second(at)), Known::Nothing(Some(n)));
        }
        assert_eq!(names.find("one", 1, (0, 0), MINUTE, second(999)), Known::Full, "all are being looked up");
        names.found(7, Vec::new(), second(1000));
        names.found(9, Vec::new(), second(1000));
        assert_eq!(names.find("one", 1, (0, 0), MINUTE, second(1001)), Known::Nothing(Some(7)));
    }
}
