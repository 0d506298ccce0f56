//! What must hold in the table after every operation, and the fuzz target that tries to break it.

use super::balancer::Balancer;
use super::member::{Member, NO_MARK, State};
use super::timers::Timers;
use super::{Announce, BalancerId, Heard, Members, Policy, Reason, Silence, What, WhenDeaf, Writer};
use crate::clock::{Mono, Now};
use crate::state_text::decode;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

impl Members {
    /// Checks the whole table; for tests and fuzzing.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    #[doc(hidden)]
    pub fn invariants(&self) -> Result<(), String> {
        let mut timers = 0;
        for balancer in self.all() {
            timers += balancer
                .check(&self.timers)
                .map_err(|broken| format!("balancer {}: {broken}", balancer.name))?;
        }
        // Alarms of balancers that are gone may still be under way.
        holds(timers <= self.timers.len(), "a member's timer is not in the wheel")
    }
}

impl Balancer {
    /// Returns how many timers its members have.
    fn check(&self, timers: &Timers) -> Result<usize, String> {
        let mut line = Vec::new();
        let mut at = self.table.longest_dead();
        while let Some(index) = at {
            holds(line.len() <= self.table.len(), "the line of the dead has no end")?;
            line.push(index);
            at = self.table.next_dead(index);
        }
        let died: Vec<_> = line.iter().map(|index| self.table.get(*index).dead_since).collect();
        holds(died.is_sorted(), "the dead are out of order")?;
        holds(line.iter().all(|i| self.table.get(*i).state != State::Up), "the living among the dead")?;
        holds(line.len() + self.up == self.table.len(), "up and dead do not make all")?;
        let up = self.table.iter().filter(|(_, m)| m.state == State::Up).count();
        holds(up == self.up, "wrong number of members up")?;
        holds(self.table.iter().count() == self.table.len(), "wrong number of members")?;
        if let Some(kept) = self.kept {
            holds(self.table.get(kept).state == State::Up && self.up == 1, "kept, but not the last up")?;
        }
        for (id, member) in self.table.iter() {
            let found = self.table.find(member.url());
            holds(found == Some(id.index), "a url does not lead to its member")?;
            self.check_times(id.index, member, timers)?;
        }
        Ok(self.table.iter().filter(|(_, m)| m.timer.is_some()).count())
    }

    /// Whatever is due has a timer that goes off in time, unless the member is being spared.
    fn check_times(&self, index: u32, member: &Member, timers: &Timers) -> Result<(), String> {
        let dead = member.state != State::Up;
        holds(!dead || member.last_seen <= member.dead_since, "seen after its death")?;
        let spared = !dead
            && (self.hearing.unheard().is_some() || self.recovered.is_some() || self.kept == Some(index));
        match (self.due(member).filter(|due| Timers::comes(*due)), member.timer) {
            (Some(_), None) => holds(spared, "something is due and no timer is armed"),
            (Some(due), Some(timer)) => {
                holds(spared || timers.in_time(timer, due), "the timer comes too late")
            }
            (None, _) => Ok(()),
        }
    }
}

fn holds(it: bool, otherwise: &str) -> Result<(), String> {
    if it { Ok(()) } else { Err(otherwise.into()) }
}

/// Fuzzing: operations decoded from bytes, the invariants after each, and an account of who may be evicted and
/// which timestamps may pass.
#[doc(hidden)]
pub fn fuzz_members(data: &[u8]) {
    let start = Now { mono: Mono(1 << 40), unix_us: 1 << 50 };
    let mut fuzz =
        Fuzz { members: Members::new([1, 2]), now: start, marks: BTreeMap::new(), recalled: BTreeMap::new() };
    let mut bytes = data.iter().copied();
    for name in NAMES {
        fuzz.members.balancer(name, policy(0), start.mono);
    }
    while let Some(op) = bytes.next() {
        fuzz.step(op, &mut bytes);
        assert_eq!(fuzz.members.invariants(), Ok(()), "after operation {op}");
    }
}

const NAMES: [&str; 2] = ["web", "api"];

struct Fuzz {
    members: Members,
    now: Now,
    /// The account: the mark of every url that is known.
    marks: BTreeMap<(BalancerId, Vec<u8>), i64>,
    /// The highest mark recalled for every url that was not known then.
    recalled: BTreeMap<(BalancerId, Vec<u8>), i64>,
}

impl Fuzz {
    fn step(&mut self, op: u8, bytes: &mut impl Iterator<Item = u8>) {
        let mut byte = || bytes.next().unwrap_or(0);
        let name = NAMES[usize::from(op >> 7)];
        let b = self.members.balancer(name, self.policy_of(name), self.now.mono);
        match op & 15 {
            0..=4 => self.announce(b, byte(), byte(), byte()),
            5 => self.recall(b, byte(), byte()),
            6 => self.leave(b, byte(), byte()),
            7 => self.members.heartbeat(b, self.now.mono),
            8 => self.hearing(b, byte()),
            9 | 10 => self.pass(u64::from(byte()) << (byte() % 32)),
            11 | 12 => {
                let next = self.members.next_deadline().unwrap_or(self.now.mono);
                self.pass(next.0.saturating_sub(self.now.mono.0));
            }
            13 => drop(self.members.balancer(name, policy(byte()), self.now.mono)),
            14 => self.restart(),
            _ => {
                self.members.remove(b);
                self.marks.retain(|(of, _), _| *of != b);
            }
        }
    }

    fn policy_of(&self, name: &str) -> Policy {
        let known = self.members.find(name).and_then(|b| self.members.policy(b));
        known.copied().unwrap_or_else(|| policy(0))
    }

    fn announce(&mut self, b: BalancerId, who: u8, when: u8, how: u8) {
        let url = [b'u', who & 7];
        let a = Announce {
            url: &url,
            ts: self.ts(when),
            replay_check: how & 1 == 0,
            timeout: Duration::from_micros([0, 1, 5_000, 30_000_000][usize::from(how >> 1 & 3)]),
            every: (how & 8 != 0).then(|| Duration::from_millis(how.into())),
            weight: u16::from(how >> 6),
            from: SocketAddr::new([10, 0, 0, how >> 5 & 1].into(), 9),
            host: &[b'h'; 3][..usize::from(how >> 4 & 3).min(3)],
            pid: 1,
            key: 0,
            writer: Writer::new(u32::from(how >> 5 & 3)),
        };
        let before = (self.members.lookup(b, &url).is_some(), self.members.revision(b));
        let heard = self.members.announce(b, &a, self.now.mono);
        let mark = self.marks.get(&(b, url.to_vec())).copied().unwrap_or(NO_MARK);
        match heard {
            Heard::Dropped(Reason::ReplayedTs) => {
                let recalled = self.recalled.get(&(b, url.to_vec())).copied().unwrap_or(NO_MARK);
                assert!(a.replay_check && a.ts <= if before.0 { mark } else { recalled });
            }
            Heard::Dropped(Reason::TableFull) => {
                assert!(!before.0);
                // A cap that was lowered may have cost some their place, and not have made one.
                self.forget_marks(b);
            }
            Heard::Added(id, _) | Heard::Refreshed(id, _) | Heard::Revived(id, _) => {
                assert!(!before.0 || !a.replay_check || a.ts > mark, "a replay was accepted");
                assert_eq!(self.members.get(b, id).map(Member::url), Some(&url[..]));
                if matches!(heard, Heard::Refreshed(_, facts) if facts.reweighted.is_none()) {
                    assert_eq!(self.members.revision(b), before.1, "a refresh moved the revision");
                }
                let mark = if a.replay_check { mark.max(a.ts) } else { mark };
                self.marks.insert((b, url.to_vec()), mark);
                self.forget_marks(b);
            }
            Heard::Left(_) | Heard::Ignored => unreachable!("no announcement does that"),
        }
    }

    /// What may be said of a balancer beside its members: what was not heard, who ends, who begins.
    fn hearing(&mut self, b: BalancerId, what: u8) {
        let (members, now) = (&mut self.members, self.now.mono);
        let writer = Writer::new(u32::from(what >> 3 & 3));
        match what & 7 {
            0 => members.unheard(b, Silence::Stale),
            1 => members.unheard(b, Silence::BadMac),
            2 => members.unheard(b, Silence::Other),
            3 => drop(members.cut_off(b, now)),
            4 => members.reached(b, now),
            5 => members.release(b, writer, now),
            _ => {
                let timeout = Duration::from_millis(u64::from(what >> 5) * 1000);
                members.adopt(b, writer, timeout, &mut |member| member.url().ends_with(&[what & 1]));
            }
        }
    }

    fn recall(&mut self, b: BalancerId, who: u8, when: u8) {
        let (url, mark) = (vec![b'u', who & 7], self.ts(when));
        self.members.recall(b, &url, mark, self.now.mono);
        let known = self.members.lookup(b, &url).is_some();
        let account = if known { &mut self.marks } else { &mut self.recalled };
        let before = account.entry((b, url)).or_insert(mark);
        *before = mark.max(*before);
    }

    fn leave(&mut self, b: BalancerId, who: u8, when: u8) {
        let url = [b'u', who & 7];
        let ts = self.ts(when);
        let key = (b, url.to_vec());
        match self.members.leave(b, &url, ts, self.now.mono) {
            Heard::Dropped(_) => assert!(ts <= self.marks[&key]),
            Heard::Left(id) => {
                assert_eq!(self.members.get(b, id).map(Member::state), Some(State::Left));
                self.marks.insert(key, ts);
            }
            Heard::Ignored => {
                self.marks.entry(key).and_modify(|mark| *mark = ts);
            }
            _ => unreachable!("no goodbye does that"),
        }
    }

    fn pass(&mut self, us: u64) {
        self.now.mono = Mono(self.now.mono.0.saturating_add(us));
        self.now.unix_us = self.now.unix_us.saturating_add(i64::try_from(us).unwrap_or(i64::MAX));
        let now = self.now.mono;
        let mut evicted = Vec::new();
        self.members.expire(now, &mut |event| {
            if let What::Evicted { id, silent, .. } = event.what {
                evicted.push((event.balancer, id, silent));
            }
        });
        for (b, id, silent) in evicted {
            let Some(member) = self.members.get(b, id) else { continue };
            assert!(silent > member.timeout(), "evicted too early");
        }
        assert!(self.members.next_deadline().is_none_or(|next| next > now), "left something undone");
        for b in self.members.balancers().map(|(b, _)| b).collect::<Vec<_>>() {
            self.forget_marks(b);
        }
    }

    fn restart(&mut self) {
        let saved = decode(&self.members.snapshot(self.now)).expect("our own text");
        let mut next = Members::new([3, 4]);
        let names: Vec<_> = self.members.balancers().map(|(_, name)| name.to_owned()).collect();
        let old = std::mem::take(&mut self.marks);
        for name in &names {
            let id = next.balancer(name, self.policy_of(name), self.now.mono);
            let was = self.members.find(name);
            self.marks
                .extend(old.iter().filter(|(k, _)| Some(k.0) == was).map(|(k, m)| ((id, k.1.clone()), *m)));
        }
        next.restore(saved, self.now, &mut |_, url| Some(url.to_vec()));
        self.members = next;
        for name in &names {
            let Some(b) = self.members.find(name) else { continue };
            let marks: BTreeMap<_, _> =
                self.members.members(b).map(|(_, m)| (m.url().to_vec(), m.mark)).collect();
            let full = self.members.count(b) >= self.policy_of(name).max_members;
            for ((_, url), mark) in self.marks.iter().filter(|((of, _), _)| *of == b) {
                // It may be higher: one recalled before the member was known is not in the account.
                assert!(full || marks.get(url).is_some_and(|kept| kept >= mark), "a restart lost a mark");
            }
            self.forget_marks(b);
        }
    }

    /// The account forgets whom the table forgot.
    fn forget_marks(&mut self, b: BalancerId) {
        let members = &self.members;
        self.marks.retain(|(of, url), _| *of != b || members.lookup(b, url).is_some());
    }

    fn ts(&self, when: u8) -> i64 {
        self.now.unix_us + (i64::from(when) - 128) * 1000
    }
}

fn policy(choice: u8) -> Policy {
    Policy {
        max_members: usize::from(choice & 3) + 2,
        forget: Duration::from_millis(if choice & 4 == 0 { 100_000 } else { 0 }),
        keep_last: choice & 8 != 0,
        when_deaf: match choice >> 4 & 3 {
            0 | 3 => WhenDeaf::Hold,
            1 => WhenDeaf::Evict,
            _ => WhenDeaf::HoldFor(Duration::from_millis(u64::from(choice) * 10)),
        },
        timeout: Duration::from_secs(if choice & 64 == 0 { 30 } else { 0 }),
        max_skew: Duration::from_secs(if choice & 128 == 0 { 1 } else { 30 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_operations(data in proptest::collection::vec(any::<u8>(), 0..600)) {
            fuzz_members(&data);
        }
    }
}
