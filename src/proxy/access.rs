//! Who may open a session, and how many at a time.
//!
//! [`Access`] judges an address by the rules of `--allow` and `--deny`; [`PerSource`] counts the sessions of each
//! source. An address is that of the client, as the connection or its PROXY header says. Nothing here closes anything.

use crate::cidr::{Cidr, masked};
use crate::sorted::Sorted;
use std::fmt;
use std::net::IpAddr;

/// A range with the place where it was written, as `beacond.conf:7`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The addresses.
    pub range: Cidr,
    /// The place.
    pub place: String,
}

/// The rules of a proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Access {
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Access {
    /// Rules of both kinds, in the order in which they are to be named: of several that cover an address, the first.
    #[must_use]
    pub fn new(allow: Vec<Rule>, deny: Vec<Rule>) -> Access {
        Access { allow, deny }
    }

    /// What the rules say about `ip`. A rule that denies wins; if any rule allows, only what one covers may in.
    #[must_use]
    pub fn judge(&self, ip: IpAddr) -> Verdict<'_> {
        let covers = |rule: &&Rule| rule.range.covers(ip);
        if let Some(rule) = self.deny.iter().find(covers) {
            return Verdict::Denied(rule);
        }
        match self.allow.iter().find(covers) {
            Some(rule) => Verdict::Allowed(rule),
            None if self.allow.is_empty() => Verdict::Open,
            None => Verdict::Unlisted,
        }
    }
}

/// What becomes of an address, and which rule says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict<'a> {
    /// It may in: no rule denies it, and there is none that allows.
    Open,
    /// It may in by this rule.
    Allowed(&'a Rule),
    /// It is kept out by this rule.
    Denied(&'a Rule),
    /// It is kept out: there are rules that allow, and none covers it.
    Unlisted,
}

impl Verdict<'_> {
    /// Whether the address may in.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Verdict::Open | Verdict::Allowed(_))
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Open => f.write_str("allowed: no --deny covers it"),
            Verdict::Allowed(Rule { range, place }) => write!(f, "allowed by --allow {range} ({place})"),
            Verdict::Denied(Rule { range, place }) => write!(f, "denied by --deny {range} ({place})"),
            Verdict::Unlisted => f.write_str("denied: no --allow covers it"),
        }
    }
}

/// How many sessions each source has. Holds the sources that have one, and nothing else.
#[derive(Debug)]
pub struct PerSource {
    limit: u32,
    // A new source moves those behind it: 24 bytes each, microseconds where there are ten thousand. An ordered list
    // has no hash that somebody who chooses addresses could make collide.
    sessions: Sorted<IpAddr, u32>,
}

impl PerSource {
    /// Lets every source have `limit` sessions; 0 is no limit, and nothing is counted.
    #[must_use]
    pub fn new(limit: u32) -> PerSource {
        PerSource { limit, sessions: Sorted::default() }
    }

    /// Counts a session of `ip` if there is room for it; it must [`PerSource::leave`] in the end.
    #[must_use]
    pub fn enter(&mut self, ip: IpAddr) -> bool {
        if self.limit == 0 {
            return true;
        }
        let sessions = self.sessions.or_default(source_key(ip));
        let room = *sessions < self.limit;
        *sessions += u32::from(room);
        room
    }

    /// Ends a session that had entered.
    pub fn leave(&mut self, ip: IpAddr) {
        let source = source_key(ip);
        match self.sessions.get_mut(&source) {
            Some(sessions) if *sessions > 1 => *sessions -= 1,
            Some(_) => drop(self.sessions.remove(&source)),
            // It entered while there was no limit.
            None => {}
        }
    }

    /// Sets another limit; sessions that entered under the old one go on. Those that entered without a limit were not
    /// counted: when one leaves, another of its source may come in its place.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// How many sources have a session.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sessions.len()
    }
}

/// The address that stands for all of one source: IPv4 addresses are one each, of IPv6 a customer has a whole /64.
#[must_use]
pub fn source_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        v6 @ IpAddr::V6(_) => masked(v6, 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let rules = |list: &[&str], option: &str| {
            let rule = |(n, text): (usize, &&str)| Rule {
                range: Cidr::parse(text).unwrap(),
                place: format!("{option}:{n}"),
            };
            list.iter().enumerate().map(rule).collect()
        };
        Access::new(rules(allow, "allow"), rules(deny, "deny"))
    }

    #[test]
    fn deny_wins_and_any_allow_closes_the_rest() {
        let (open, denying) = (access(&[], &[]), access(&[], &["10.0.0.0/8", "10.1.0.0/16"]));
        let both = access(&["10.0.0.0/8", "fd00::/8"], &["10.1.0.0/16"]);
        for (access, from, verdict) in [
            (&open, "10.1.0.1", "allowed: no --deny covers it"),
            (&denying, "192.0.2.1", "allowed: no --deny covers it"),
            (&denying, "::ffff:10.1.0.1", "denied by --deny 10.0.0.0/8 (deny:0)"),
            (&both, "10.1.0.1", "denied by --deny 10.1.0.0/16 (deny:0)"),
            (&both, "10.2.0.1", "allowed by --allow 10.0.0.0/8 (allow:0)"),
            (&both, "fdff::1", "allowed by --allow fd00::/8 (allow:1)"),
            (&both, "192.0.2.1", "denied: no --allow covers it"),
        ] {
            let judged = access.judge(ip(from));
            assert_eq!(judged.to_string(), verdict, "{from}");
            assert_eq!(judged.passes(), verdict.starts_with("allowed"), "{from}");
        }
    }

    #[test]
    fn a_source_is_an_address_or_a_64() {
        for (from, source) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(source_key(ip(from)), ip(source));
        }
        let mut none = PerSource::new(0);
        assert!((0..9).all(|_| none.enter(ip("192.0.2.7"))) && none.sources() == 0);
        // What entered unlimited may leave after a limit was set.
        none.set_limit(1);
        none.leave(ip("192.0.2.7"));
        assert!(none.enter(ip("192.0.2.7")) && !none.enter(ip("::ffff:192.0.2.7")));
    }

    proptest! {
        #[test]
        fn counts_the_sessions_alive(limit in 1u32..4, steps in prop::collection::vec((any::<bool>(), 0u8..6), 0..200)) {
            let mut ours = PerSource::new(limit);
            let mut alive: Vec<IpAddr> = Vec::new();
            for (enters, n) in steps {
                let from = ip(["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "fd00:0:0:1::"][usize::from(n)]);
                if enters {
                    let same = alive.iter().filter(|other| source_key(**other) == source_key(from)).count();
                    let room = same < usize::try_from(limit).unwrap();
                    prop_assert_eq!(ours.enter(from), room);
                    alive.extend(room.then_some(from));
                } else if let Some(at) = alive.iter().position(|other| *other == from) {
                    ours.leave(alive.swap_remove(at));
                }
                let sources: BTreeMap<IpAddr, ()> = alive.iter().map(|ip| (source_key(*ip), ())).collect();
                prop_assert_eq!(ours.sources(), sources.len());
            }
        }
    }
}
