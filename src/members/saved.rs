//! The table to the state file's text and back. Times become ages: the monotonic clock of the last run means
//! nothing in this one, and the wall clock may have been set since.

use super::member::{Member, NO_MARK, State};
use super::{Announce, BalancerId, Members, entry};
use crate::clock::{Mono, Now};
use crate::sorted::sort;
use crate::state_text::{Row, Saved, encode};
use std::borrow::Cow;
use std::time::Duration;

/// What [`Members::restore`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// Members that are in the table now, up or dead.
    pub members: usize,
    /// Of these, how many are up.
    pub up: usize,
    /// Rows whose url admission refused.
    pub refused: usize,
    /// Rows of balancers that are not configured any more.
    pub strangers: usize,
    /// Rows for which the table had no place.
    pub no_room: usize,
}

/// Admission, as the state file's urls pass it again: balancer and url in, canonical url out.
pub type Admit<'a> = dyn FnMut(&str, &[u8]) -> Option<Vec<u8>> + 'a;

/// A row that was admitted, with its times on this run's clock.
struct Back {
    url: Vec<u8>,
    row: Row<'static>,
    seen: Mono,
    /// `None` while it is up.
    dead: Option<Mono>,
    mark: i64,
}

impl Members {
    /// The text of the state file for all balancers as they are now.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Vec<u8> {
        let rows = self.all().flat_map(|b| b.table.iter().map(|(_, member)| row(&b.name, member, now)));
        encode(now.unix_us, rows)
    }

    /// Takes over what an earlier run saved. Every url passes `admit` again, which returns its canonical form; rows
    /// that meet there, or a member that is here already, keep the highest mark. Ages are held to the past, members
    /// that were up have one full timeout from now, the dead stay dead.
    pub fn restore(&mut self, saved: Saved, now: Now, admit: &mut Admit<'_>) -> Restored {
        let mut done = Restored::default();
        let mut rows = Vec::new();
        for row in saved.rows {
            let Some(b) = self.find(&row.balancer) else {
                done.strangers += 1;
                continue;
            };
            let Some(url) = admit(&row.balancer, &row.url) else {
                done.refused += 1;
                continue;
            };
            rows.push((b, Back::new(url, row, now)));
        }
        sort(&mut rows, |(a, one), (b, other)| a.cmp(b).then_with(|| one.url.cmp(&other.url)));
        rows.dedup_by(|(b, later), (a, first)| {
            let same = a == b && first.url == later.url;
            if same {
                first.merge(later);
            }
            same
        });
        while let Some(&(b, _)) = rows.first() {
            let end = rows.partition_point(|(a, _)| *a == b);
            let mine = rows.drain(..end).map(|(_, back)| back).collect();
            self.reinstate(b, mine, now.mono, &mut done);
        }
        done
    }

    fn reinstate(&mut self, b: BalancerId, mut rows: Vec<Back>, now: Mono, done: &mut Restored) {
        let Some(balancer) = entry(&mut self.balancers, b) else { return };
        balancer.pardon = now;
        let known = rows.extract_if(.., |back| match balancer.table.find(&back.url) {
            Some(index) => {
                let member = balancer.table.get_mut(index);
                member.mark = member.mark.max(back.mark);
                true
            }
            None => false,
        });
        done.members += known.count();
        // Places go to those that are up, then to those that died last; they are entered oldest death first.
        let dead = |back: &Back| back.dead.unwrap_or(Mono::NEVER);
        sort(&mut rows, |a, b| dead(b).cmp(&dead(a)));
        let room = balancer.policy.max_members.saturating_sub(balancer.table.len());
        done.no_room += rows.len().saturating_sub(room);
        rows.truncate(room);
        for back in rows.into_iter().rev() {
            done.members += 1;
            done.up += usize::from(back.dead.is_none());
            let member = back.member(balancer.table.hash(&back.url), balancer.policy.timeout);
            balancer.reinstate(member, &mut self.timers);
        }
    }
}

impl Back {
    fn new(url: Vec<u8>, row: Row<'static>, now: Now) -> Back {
        let seen = back_then(row.seen_us, now);
        let dead =
            (row.state != State::Up).then(|| back_then(row.dead_us.unwrap_or(row.seen_us), now).max(seen));
        Back { url, seen, dead, mark: row.mark.unwrap_or(NO_MARK), row }
    }

    /// Two rows for one url: the highest mark, and otherwise the one that is up or was heard last.
    fn merge(&mut self, other: &mut Back) {
        let mark = self.mark.max(other.mark);
        if (self.dead.is_none(), self.seen) <= (other.dead.is_none(), other.seen) {
            std::mem::swap(self, other);
        }
        self.mark = mark;
    }

    fn member(&self, hash: u32, timeout: Duration) -> Member {
        let announce = Announce {
            url: &self.url,
            replay_check: false,
            timeout,
            every: self.row.every_ms.map(|ms| Duration::from_millis(ms.into())),
            weight: self.row.weight,
            from: self.row.from,
            host: &self.row.host,
            pid: self.row.pid,
            ..Announce::default()
        };
        let mut member = Member::new(&announce, hash, self.seen);
        member.mark = self.mark;
        if let Some(dead) = self.dead {
            (member.state, member.dead_since) = (self.row.state, dead);
        }
        member
    }
}

fn row<'a>(balancer: &'a str, member: &'a Member, now: Now) -> Row<'a> {
    let us = |then: Mono| {
        let age = i64::try_from(now.mono.since(then).as_micros()).unwrap_or(i64::MAX);
        now.unix_us.saturating_sub(age)
    };
    Row {
        balancer: balancer.into(),
        url: Cow::Borrowed(member.url()),
        state: member.state(),
        weight: member.weight(),
        mark: member.mark(),
        seen_us: us(member.last_seen()),
        dead_us: member.dead_since().map(us),
        every_ms: member.every().map(|every| u32::try_from(every.as_millis()).unwrap_or(u32::MAX)),
        from: member.from(),
        pid: member.pid(),
        host: Cow::Borrowed(member.host()),
    }
}

/// A wall-clock time of the last run on this run's monotonic clock: not in the future, not before its origin.
fn back_then(unix_us: i64, now: Now) -> Mono {
    let age = u64::try_from(now.unix_us.saturating_sub(unix_us)).unwrap_or(0);
    Mono(now.mono.0.saturating_sub(age))
}
