//! The fuzz target: operations decoded from bytes, beside a naive account of who may be picked and what was counted.

use super::health::LONGEST;
use super::{Balance, Config, HashKey, Member, Pool, Row, SEED};
use crate::clock::Mono;
use crate::members::MemberId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Fuzzing: any operations in any order, at any time; what must hold is checked after each.
#[doc(hidden)]
pub fn fuzz_balance(data: &[u8]) {
    let mut fuzz = Fuzz {
        pool: Pool::new(config(0), SEED),
        now: Mono(1 << 40),
        table: BTreeMap::new(),
        accounts: BTreeMap::new(),
    };
    let mut bytes = data.iter().copied();
    while let Some(op) = bytes.next() {
        let mut byte = || bytes.next().unwrap_or(0);
        match op & 7 {
            0 => fuzz.sync(byte(), byte()),
            1 | 2 => fuzz.session(byte(), byte()),
            3 => fuzz.close(byte()),
            4 | 5 => fuzz.fail(byte(), op >> 4),
            6 => {
                let passed = u64::from(byte()) << (op >> 3);
                fuzz.now = Mono(fuzz.now.0.saturating_add(passed));
            }
            _ => fuzz.pool.reconfigure(config(byte())),
        }
        fuzz.check();
    }
}

struct Fuzz {
    pool: Pool,
    now: Mono,
    /// What the last level said.
    table: BTreeMap<MemberId, Member>,
    /// Of those in the table, and of those with sessions.
    accounts: BTreeMap<MemberId, Account>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Account {
    open: u64,
    total: u64,
    bytes_in: u64,
    bytes_out: u64,
    failures: u64,
}

impl Fuzz {
    /// Changes one member of the table and shows the pool all of it.
    fn sync(&mut self, who: u8, what: u8) {
        let id = id(who);
        if what & 3 == 0 {
            self.table.remove(&id);
        } else {
            let addr = SocketAddr::new([10, 0, 0, who & 7].into(), u16::from(what >> 6));
            let weight = [0, 1, 7, u16::MAX][usize::from(what >> 2 & 3)];
            let last_seen = Mono(self.now.0.saturating_sub(u64::from(what >> 5) << 20));
            self.table.insert(id, Member { id, addr, weight, up: what & 16 == 0, last_seen });
        }
        self.accounts.entry(id).or_default();
        self.pool.sync(self.table.values().copied(), self.now);
    }

    fn session(&mut self, how: u8, random: u8) {
        let tried: Vec<MemberId> = (0..8).filter(|bit| how >> bit & 1 != 0).map(id).collect();
        let random = u64::from(random).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let picked = self.pool.pick(&[how], &tried, self.now, random);
        let may = |m: &&Member| m.up && m.weight > 0 && !tried.contains(&m.id);
        let Some(choice) = picked else {
            assert_eq!(self.table.values().find(may), None, "nobody was picked");
            return;
        };
        let member = self.table.get(&choice.id).filter(may).expect("somebody was picked who may not be");
        assert_eq!(member.addr, choice.addr);
        let left_in = |m: &&Member| may(m) && self.ejected(m.id).is_none();
        assert!(
            self.ejected(choice.id).is_none() || !self.table.values().any(|m| left_in(&m)),
            "somebody was picked who is left out, and others were not tried"
        );
        self.pool.opened(choice.id);
        let account = self.accounts.entry(choice.id).or_default();
        account.open += 1;
        account.total += 1;
    }

    fn close(&mut self, who: u8) {
        self.pool.closed(id(who), 1, 2);
        if let Some(account) = self.accounts.get_mut(&id(who)) {
            account.open = account.open.saturating_sub(1);
            account.bytes_in += 1;
            account.bytes_out += 2;
        }
    }

    fn fail(&mut self, who: u8, times: u8) {
        let id = id(who);
        if times & 1 != 0 {
            self.pool.connected(id, self.now);
            return;
        }
        for _ in 0..=times / 2 {
            self.accounts.entry(id).and_modify(|account| account.failures += 1);
            if let Some(length) = self.pool.failed(id, self.now) {
                assert!((Duration::from_secs(5)..=LONGEST).contains(&length));
            }
        }
    }

    fn check(&mut self) {
        self.accounts.retain(|id, account| account.open > 0 || self.table.contains_key(id));
        let rows: Vec<_> = self.pool.rows(self.now).collect();
        let accounts: BTreeMap<MemberId, Account> = rows
            .iter()
            .map(|row| {
                let Row { open, total, bytes_in, bytes_out, failures, .. } = *row;
                (row.id, Account { open, total, bytes_in, bytes_out, failures })
            })
            .collect();
        assert_eq!(accounts, self.accounts);
        assert_eq!(rows.len(), accounts.len(), "somebody is in the pool twice");
        assert!(rows.iter().all(|row| row.ejected_for.is_none_or(|left| left <= LONGEST)));
        let eligible: Vec<_> = self.table.values().filter(|m| m.up && m.weight > 0).collect();
        let out = eligible.iter().filter(|m| self.ejected(m.id).is_some()).count();
        assert!(out * 2 <= eligible.len(), "{out} of {} are left out", eligible.len());
    }

    fn ejected(&self, id: MemberId) -> Option<Duration> {
        self.pool.rows(self.now).find(|row| row.id == id)?.ejected_for
    }
}

fn id(who: u8) -> MemberId {
    MemberId { index: u32::from(who & 7), generation: u32::from(who >> 7) }
}

fn config(choice: u8) -> Config {
    let how = [Balance::P2c, Balance::LeastConn, Balance::RoundRobin, Balance::Hash(HashKey::Source)];
    Config { how: how[usize::from(choice & 3)], slow_start: Duration::from_secs(u64::from(choice >> 2)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_operations(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            fuzz_balance(&data);
        }
    }
}
