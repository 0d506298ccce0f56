//! Timestamps and gaps of a sender: pure.

use crate::clock::micros;
use std::time::Duration;

/// How far ahead of the clock a run of timestamps may get before the clock wins again, in microseconds.
const LEAD: i64 = 1_000_000;

/// Timestamps that rise with every datagram, so that no receiver takes one for a replay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    last: i64,
}

impl Stamps {
    /// The timestamp for the next datagram; `now_us` is the wall clock in microseconds since the Unix epoch.
    ///
    /// It exceeds the one before, unless the clock was set back by a second or more: then the clock is right, and
    /// receivers take us back once it has passed the last timestamp they accepted.
    pub fn next(&mut self, now_us: i64) -> i64 {
        let ahead = self.last.saturating_sub(now_us);
        self.last = if ahead < LEAD { now_us.max(self.last.saturating_add(1)) } else { now_us };
        self.last
    }
}

/// `interval`, shortened or lengthened by up to a tenth as `random` has it.
#[must_use]
pub fn jittered(interval: Duration, random: u64) -> Duration {
    let base = micros(interval);
    let tenth = base / 10;
    Duration::from_micros(base - tenth + random % (2 * tenth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_set_back_is_followed_at_once() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.next(10_000_000), 10_000_000);
        assert_eq!(stamps.next(10_000_000), 10_000_001);
        assert_eq!(stamps.next(9_500_000), 10_000_002, "half a second back: wait for the clock");
        assert_eq!(stamps.next(9_000_002), 9_000_002, "a second back: believe the clock");
    }

    proptest! {
        #[test]
        fn rising_as_long_as_the_clock_is_not_set_back_far(steps in prop::collection::vec(-900_000i64..900_000, 1..50)) {
            let mut stamps = Stamps::default();
            let (mut now, mut highest, mut last) = (1_000_000_000i64, 0i64, 0i64);
            for step in steps {
                now += step;
                highest = highest.max(now);
                let ts = stamps.next(now);
                if highest - now < LEAD - 100 {
                    prop_assert!(ts > last);
                }
                prop_assert!(ts >= now && ts < now + LEAD);
                last = ts;
            }
        }

        #[test]
        fn gaps_stay_within_a_tenth(ms in 100u64..100_000, random: u64) {
            let interval = Duration::from_millis(ms);
            let gap = jittered(interval, random);
            prop_assert!(gap >= interval * 9 / 10 && gap <= interval * 11 / 10);
        }
    }
}
