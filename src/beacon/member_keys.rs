//! A key for each member, so that a backend can only sign for itself.
//!
//! Every key is derived from a master that the receiver alone holds ([`Secret::member_passphrase`]), hence a receiver
//! needs no list of them; it derives the key of the url that a datagram claims. That costs more than a MAC, and anybody
//! can claim urls: so keys that have proven themselves are kept, and derivations for other urls come out of a budget.
//! An outsider can spend the budget, which keeps *new* members out for as long as it lasts, and touches no known one.
//! Pure: the time is an argument.

use super::Reason;
use super::auth::{Key, Signed};
use crate::clock::Mono;
use crate::secret::Secret;
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// Derivations in vain that are paid for per second, and at once after a second of none: about 2 % of one core.
pub const BUDGET_PER_SECOND: u64 = 10_000;

/// Without a seed: only urls whose key the sender held get in, so nobody can choose many that collide.
type Keys = HashMap<Box<[u8]>, Key, BuildHasherDefault<SipHasher13>>;

/// The keys of one balancer's members.
#[derive(Debug)]
pub struct MemberKeys {
    masters: Vec<Secret>,
    balancer: String,
    capacity: usize,
    /// Proven keys; when these are `capacity`, they become `before` and what was there is dropped.
    proven: Keys,
    before: Keys,
    budget: Budget,
}

impl MemberKeys {
    /// Keys derived from `masters` (several while one replaces another) for `balancer`. At most twice `capacity` are
    /// remembered; with fewer members than `capacity` none is ever derived again.
    #[must_use]
    pub fn new(masters: Vec<Secret>, balancer: &str, capacity: usize) -> MemberKeys {
        let capacity = capacity.max(1);
        MemberKeys {
            masters,
            balancer: balancer.to_owned(),
            capacity,
            proven: Keys::with_capacity_and_hasher(capacity, BuildHasherDefault::default()),
            before: Keys::default(),
            budget: Budget::default(),
        }
    }

    /// Whether the member with this canonical `url` signed the datagram.
    ///
    /// # Errors
    /// [`Reason::MacMismatch`], or [`Reason::KeyBudget`] where the budget does not allow to find out.
    pub fn vouch(&mut self, url: &str, signed: &Signed<'_>, now: Mono) -> Result<(), Reason> {
        match self.remembered(url).map(|key| signed.is_by(key)) {
            Some(true) => return Ok(()),
            Some(false) if self.masters.len() == 1 => return Err(Reason::MacMismatch),
            _ => {}
        }
        if !self.budget.take(now) {
            return Err(Reason::KeyBudget);
        }
        let derived =
            |master: &Secret| Key::from_secret(master.member_passphrase(&self.balancer, url).bytes());
        let key =
            self.masters.iter().map(derived).find(|key| signed.is_by(key)).ok_or(Reason::MacMismatch)?;
        self.budget.put_back();
        self.remember(url, key);
        Ok(())
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.proven.len() + self.before.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn remembered(&mut self, url: &str) -> Option<&Key> {
        if !self.before.is_empty()
            && let Some((url, key)) = self.before.remove_entry(url.as_bytes())
        {
            self.insert(url, key);
        }
        self.proven.get(url.as_bytes())
    }

    fn remember(&mut self, url: &str, key: Key) {
        self.insert(url.as_bytes().into(), key);
    }

    fn insert(&mut self, url: Box<[u8]>, key: Key) {
        if self.proven.len() == self.capacity && !self.proven.contains_key(&url) {
            self.before = std::mem::replace(
                &mut self.proven,
                Keys::with_capacity_and_hasher(self.capacity, BuildHasherDefault::default()),
            );
        }
        self.proven.insert(url, key);
    }
}

/// A bucket of one second's worth of derivations, kept as the time at which it would be full.
#[derive(Debug, Default)]
struct Budget {
    full_at: Mono,
}

impl Budget {
    const COST_US: u64 = SECOND_US / BUDGET_PER_SECOND;

    fn take(&mut self, now: Mono) -> bool {
        let full_at = self.full_at.0.max(now.0).saturating_add(Budget::COST_US);
        let affordable = full_at <= now.0.saturating_add(SECOND_US);
        if affordable {
            self.full_at = Mono(full_at);
        }
        affordable
    }

    fn put_back(&mut self) {
        self.full_at = Mono(self.full_at.0.saturating_sub(Budget::COST_US));
    }
}

const SECOND_US: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://10.0.0.5:8080";

    fn master() -> Secret {
        Secret::new(b"a master key of good length")
    }

    fn signed_by(secret: &Secret, text: &str) -> Vec<u8> {
        let mut datagram = text.as_bytes().to_vec();
        Key::from_secret(secret.bytes()).sign(&mut datagram);
        datagram
    }

    fn own(url: &str) -> Vec<u8> {
        signed_by(&master().member_passphrase("web", url), "x")
    }

    fn vouch(keys: &mut MemberKeys, url: &str, datagram: &[u8], now: Mono) -> Result<(), Reason> {
        keys.vouch(url, &Signed::read(datagram).unwrap(), now)
    }

    #[test]
    fn each_member_has_its_own_key() {
        let mut keys = MemberKeys::new(vec![master()], "web", 4);
        for _ in 0..2 {
            assert_eq!(vouch(&mut keys, URL, &own(URL), Mono::ZERO), Ok(()));
            assert_eq!(
                vouch(&mut keys, URL, &own("http://10.0.0.6:8080"), Mono::ZERO),
                Err(Reason::MacMismatch)
            );
        }
        assert_eq!(vouch(&mut keys, "http://10.0.0.6:8080", &own(URL), Mono::ZERO), Err(Reason::MacMismatch));
        let elsewhere = signed_by(&master().member_passphrase("other", URL), "x");
        assert_eq!(vouch(&mut keys, URL, &elsewhere, Mono::ZERO), Err(Reason::MacMismatch));
        assert_eq!(keys.len(), 1, "only what has proven itself is kept");
    }

    #[test]
    fn a_master_is_replaced_member_by_member() {
        let new = Secret::new(b"the next master");
        let mut keys = MemberKeys::new(vec![new.clone(), master()], "web", 4);
        assert_eq!(vouch(&mut keys, URL, &own(URL), Mono::ZERO), Ok(()));
        let moved = signed_by(&new.member_passphrase("web", URL), "x");
        assert_eq!(vouch(&mut keys, URL, &moved, Mono::ZERO), Ok(()));
        assert_eq!(keys.len(), 1);
    }

    #[test]
    fn strangers_spend_a_budget_that_members_do_not_need() {
        let mut keys = MemberKeys::new(vec![master()], "web", 4);
        assert_eq!(vouch(&mut keys, URL, &own(URL), Mono::ZERO), Ok(()));
        let strange = |n: u64| format!("http://10.1.0.1:{}", n + 1);
        for n in 0..BUDGET_PER_SECOND {
            assert_eq!(vouch(&mut keys, &strange(n), &own(URL), Mono::ZERO), Err(Reason::MacMismatch), "{n}");
        }
        let late = "http://10.0.0.7:80";
        assert_eq!(vouch(&mut keys, late, &own(late), Mono::ZERO), Err(Reason::KeyBudget));
        assert_eq!(vouch(&mut keys, URL, &own(URL), Mono::ZERO), Ok(()));
        assert_eq!(vouch(&mut keys, late, &own(late), Mono(Budget::COST_US)), Ok(()), "one is earned back");
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn a_member_costs_no_budget() {
        let mut keys = MemberKeys::new(vec![master()], "web", 1);
        for n in 0..BUDGET_PER_SECOND + 5 {
            let url = format!("http://10.1.0.1:{}", n + 1);
            assert_eq!(vouch(&mut keys, &url, &own(&url), Mono::ZERO), Ok(()), "{n}");
            assert!(keys.len() <= 2);
        }
    }

    #[test]
    fn those_in_use_survive_a_full_cache() {
        let mut keys = MemberKeys::new(vec![master()], "web", 3);
        for n in 1..40 {
            let url = format!("http://10.1.0.1:{n}");
            assert_eq!(vouch(&mut keys, &url, &own(&url), Mono::ZERO), Ok(()));
            assert_eq!(vouch(&mut keys, URL, &own(URL), Mono::ZERO), Ok(()));
            assert!(keys.remembered(URL).is_some());
            assert!(keys.len() <= 6);
        }
    }
}
