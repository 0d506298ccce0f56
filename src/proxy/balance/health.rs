//! Outlier ejection: whether a member that is up, by its announcements, can be connected to.
//!
//! - A member is an outlier after [`ROW`] failed connects in a row, or when half of the last [`WINDOW`] failed.
//! - It is out for [`SHORTEST`]; if it has to go again, for twice as long, up to [`LONGEST`]. The doubling is
//!   forgotten by a connect that succeeds when nothing has failed for as long as the last ejection lasted,
//!   counted from its end.
//! - The first announcement heard after an ejection halves what is left of it. Only the first: one every few
//!   seconds would make nothing of five minutes.
//! - What is reported while it is out is counted and changes nothing: those connects began earlier, or in despair.
//!
//! That no more than half of the members may be out is the pool's business.

use crate::clock::{Mono, micros};
use std::time::Duration;

/// The record of one member.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// Failed connects in all.
    pub failures: u64,
    /// Failed connects since the last that succeeded.
    row: u8,
    /// The last results, newest in the lowest bit, set where it failed; and how many there are.
    window: u16,
    seen: u32,
    ejection: Option<Ejection>,
    /// How many ejections followed each other, and how long the last was meant to be.
    level: u32,
    length: Duration,
    /// Since when nothing failed.
    clean: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    since: Mono,
    until: Mono,
    halved: bool,
}

impl Health {
    /// A connect failed. Says whether the member is an outlier now.
    pub fn failed(&mut self, now: Mono) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.ejection.is_some() {
            return false;
        }
        self.row = self.row.saturating_add(1);
        self.note(1);
        self.clean = now;
        self.row >= ROW || self.seen == WINDOW && self.window.count_ones() * 2 >= WINDOW
    }

    /// A connect succeeded.
    pub fn connected(&mut self, now: Mono) {
        if self.ejection.is_some() {
            return;
        }
        self.row = 0;
        self.note(0);
        if now.since(self.clean) >= self.length {
            self.level = 0;
        }
    }

    /// Puts the member out, and says for how long.
    pub fn eject(&mut self, now: Mono) -> Duration {
        self.length = LONGEST.min(SHORTEST * (1 << self.level.min(MAX_LEVEL)));
        self.level = (self.level + 1).min(MAX_LEVEL);
        self.ejection = Some(Ejection { since: now, until: now.after(self.length), halved: false });
        self.clear();
        self.length
    }

    /// An announcement was heard at `seen`. Says whether that shortened an ejection.
    pub fn heard(&mut self, seen: Mono, now: Mono) -> bool {
        let Some(ejection) = self.ejection.as_mut().filter(|e| !e.halved && seen > e.since) else {
            return false;
        };
        let left = micros(ejection.until.since(now));
        ejection.until = Mono(ejection.until.0 - left / 2);
        ejection.halved = true;
        true
    }

    /// Ends an ejection whose time is over, and says when that was.
    pub fn end(&mut self, now: Mono) -> Option<Mono> {
        let until = self.out().filter(|until| *until <= now)?;
        self.release(until);
        Some(until)
    }

    /// Ends an ejection at once.
    pub fn release(&mut self, now: Mono) {
        self.ejection = None;
        self.clean = now;
    }

    /// Forgets the results, not the ejections: the member was away, and what it was says little of what it is.
    pub fn clear(&mut self) {
        (self.row, self.window, self.seen) = (0, 0, 0);
    }

    /// Until when the member is out.
    pub fn out(&self) -> Option<Mono> {
        self.ejection.map(|ejection| ejection.until)
    }

    fn note(&mut self, failed: u16) {
        self.window = (self.window << 1 | failed) & ((1 << WINDOW) - 1);
        self.seen = (self.seen + 1).min(WINDOW);
    }
}

/// So many failures in a row are enough.
pub(super) const ROW: u8 = 3;
/// So many results are looked back upon.
const WINDOW: u32 = 10;
/// The first ejection.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest.
pub(super) const LONGEST: Duration = Duration::from_secs(300);
/// Doubling so often passes the longest.
const MAX_LEVEL: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn three_in_a_row_or_half_of_ten() {
        let mut health = Health::default();
        assert!(!health.failed(at(0)) && !health.failed(at(0)));
        health.connected(at(0));
        assert!(!health.failed(at(0)) && !health.failed(at(0)) && health.failed(at(0)));

        // By turns: the tenth result is the fifth failure.
        let mut health = Health::default();
        for turn in 0..5 {
            health.connected(at(0));
            assert_eq!(health.failed(at(0)), turn == 4);
        }
        // Four of ten are not half; and a failure leaves the window after ten more.
        let mut health = Health::default();
        for round in 0..50 {
            for failed in [true, false, true, false, false] {
                if failed {
                    assert!(!health.failed(at(round)));
                } else {
                    health.connected(at(round));
                }
            }
        }
    }

    #[test]
    fn ejections_double_until_a_long_success() {
        let mut health = Health::default();
        let mut now = 0;
        for length in [5, 10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(health.eject(at(now)), secs(length));
            assert_eq!(health.end(at(now + length - 1)), None);
            now += length;
            assert_eq!(health.end(at(now)), Some(at(now)));
        }
        health.connected(at(now + 299));
        assert_eq!(health.clone().eject(at(now + 299)), secs(300), "not long enough");
        health.failed(at(now + 299));
        health.connected(at(now + 300));
        assert_eq!(health.clone().eject(at(now + 300)), secs(300), "there was a failure");
        health.connected(at(now + 599));
        assert_eq!(health.eject(at(now + 599)), secs(5));
    }

    #[test]
    fn an_announcement_halves_once() {
        let mut health = Health::default();
        health.eject(at(100));
        assert!(!health.heard(at(99), at(100)) && !health.heard(at(100), at(100)), "heard before");
        assert!(health.heard(at(101), at(101)));
        assert_eq!(health.out(), Some(at(103)));
        assert!(!health.heard(at(102), at(102)));
        assert_eq!(health.out(), Some(at(103)));
        assert!(!health.failed(at(102)) && health.failures == 1, "counted, and no more");
    }
}
