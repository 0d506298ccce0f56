//! What the machine remembers of one member.

use super::Facts;
use crate::clock::{Mono, micros};
use crate::sinks::diff::Goal;
use std::time::Duration;

/// One member, in the table's eyes and in etcd.
#[derive(Debug, Default)]
pub(super) struct Note {
    pub facts: Facts,
    /// What the table wants of it.
    pub goal: Option<Goal>,
    /// Its keys and what is to stand there.
    pub entries: Vec<(String, Option<String>)>,
    /// The seconds of its lease, while we think that there is one.
    pub ttl: Option<u32>,
    /// When the lease was last granted or kept; the beginning of time for not by us.
    pub kept: Mono,
    /// Its lease was found to have run out, and none was granted since.
    pub expired: bool,
    /// How often in a row a lease that had run out could not be granted, for there was one.
    pub contested: u32,
    /// Its keys are there, as they are to be.
    pub right: bool,
    /// Any of its keys is there.
    pub present: bool,
    /// It was written with this mark, and somebody has heard something newer.
    pub refused: Option<i64>,
    /// The goodbye of this mark has been passed on.
    pub farewell: Option<i64>,
    /// It was written, and not looked at since.
    pub written: bool,
    /// How often in a row it was not there after being written.
    pub tries: u32,
    /// Not written before that time.
    pub retry_at: Mono,
    pub error: Option<String>,
    /// The mark that etcd has for all we know, and when we wrote it.
    pub marked: Option<i64>,
    pub marked_at: Mono,
}

impl Note {
    pub fn is_up(&self) -> bool {
        matches!(self.goal, Some(Goal::Up(_)))
    }

    /// When its lease is to be kept alive, if it is.
    ///
    /// Not between half a timeout and a whole one of silence, so that a member that is heard by nobody any more is gone
    /// from etcd within one and a half. One that is up after a whole timeout is held by the table, and so by us.
    pub fn keep_at(&self) -> Option<Mono> {
        let due = self.due()?;
        let (seen, timeout) = (self.facts.last_seen, self.facts.timeout);
        let heard = timeout.is_zero() || due <= seen.after(timeout / 2);
        Some(if heard { due } else { due.max(seen.after(timeout + HELD)) })
    }

    /// When to ask [`Note::keep_at`] again, for by then it may have been heard.
    pub fn wake_at(&self, now: Mono) -> Option<Mono> {
        let breath = now.after((self.lease_time()? / 12).max(SHORTEST));
        Some(self.keep_at()?.min(self.due()?.max(breath)))
    }

    /// Whether it is kept along with others that are due: not within a third of its time, nor in its silence.
    pub fn is_ripe(&self, now: Mono) -> bool {
        let ripe = self.lease_time().is_some_and(|time| now >= self.kept.after(time / 3));
        ripe && self.keep_at().is_some_and(|at| at <= now || Some(at) == self.due())
    }

    /// A lease of its number is there; the next keepalive tells for how long.
    pub fn assume_lease(&mut self) {
        self.ttl = Some(self.facts.ttl());
        self.kept = Mono::ZERO;
        self.expired = false;
    }

    fn due(&self) -> Option<Mono> {
        Some(self.kept.after(self.lease_time()? * 5 / 12))
    }

    fn lease_time(&self) -> Option<Duration> {
        self.ttl.filter(|_| self.is_up()).map(|ttl| Duration::from_secs(ttl.into()))
    }
}

impl Facts {
    /// The seconds of a member's lease: its timeout, rounded up.
    pub fn ttl(&self) -> u32 {
        let whole = u32::try_from(micros(self.timeout).div_ceil(1_000_000)).unwrap_or(u32::MAX);
        if whole == 0 { TTL_FOR_EVER } else { whole.clamp(SHORTEST_TTL, LONGEST_TTL) }
    }
}

/// The lease of a member that is never evicted: how long it outlives its last receiver.
const TTL_FOR_EVER: u32 = 60;
/// What etcd makes of anything shorter.
const SHORTEST_TTL: u32 = 2;
/// etcd takes no longer ones.
const LONGEST_TTL: u32 = 9_000_000;
/// From the moment a silence is judged until we take whoever is still up for held.
const HELD: Duration = Duration::from_millis(50);
/// Between two looks at a member that is silent.
const SHORTEST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn note(timeout: u64, seen_ms: u64, kept_ms: u64) -> Note {
        let facts = Facts {
            timeout: Duration::from_secs(timeout),
            last_seen: Mono(seen_ms * 1000),
            ..Facts::default()
        };
        let ttl = Some(facts.ttl());
        Note { facts, goal: Some(Goal::Up(1)), ttl, kept: Mono(kept_ms * 1000), ..Note::default() }
    }

    #[test]
    fn leases_last_as_long_as_silence_may() {
        for (timeout, ttl) in [(0, 60), (1, 2), (2, 2), (30, 30)] {
            assert_eq!(note(timeout, 0, 0).facts.ttl(), ttl);
        }
        let odd = Facts { timeout: Duration::from_millis(2_001), ..Facts::default() };
        assert_eq!(odd.ttl(), 3, "rounded up: never shorter than the timeout");
    }

    #[test]
    fn kept_while_heard_and_while_held_but_not_between() {
        let ms = |n: Note| n.keep_at().map(|at| at.0 / 1000);
        assert_eq!(ms(note(24, 0, 0)), Some(10_000), "after five twelfths");
        assert_eq!(ms(note(24, 0, 2_000)), Some(12_000));
        assert_eq!(
            ms(note(24, 0, 2_001)),
            Some(24_050),
            "silent: only if the table keeps it beyond its timeout"
        );
        assert_eq!(ms(note(24, 0, 30_000)), Some(40_000), "held");
        assert_eq!(ms(note(0, 0, 90_000)), Some(115_000), "never evicted, always kept");
        assert_eq!(ms(Note { goal: Some(Goal::Out), ..note(24, 0, 0) }), None);
        // Whoever is silent is asked about again, for the news may be old.
        assert_eq!(note(24, 0, 2_001).wake_at(Mono(13_000_000)), Some(Mono(15_000_000)));
    }

    #[test]
    fn never_more_often_than_a_third_of_the_lease_but_together() {
        let n = note(24, 0, 0);
        assert!(!n.is_ripe(Mono(7_999_000)) && n.is_ripe(Mono(8_000_000)));
        let silent = note(24, 0, 2_001);
        assert!(!silent.is_ripe(Mono(13_000_000)) && silent.is_ripe(Mono(24_050_000)));
    }
}
