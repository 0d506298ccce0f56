//! Time as plain values. Nothing here reads a clock: the reactor does, once a turn, and hands [`Now`] down.

use std::fmt;
use std::time::Duration;

/// A point on the process's monotonic clock, in microseconds since its origin.
///
/// An integer rather than `std::time::Instant`, so that state can be tested on virtual time and written to a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// The origin of the clock.
    pub const ZERO: Mono = Mono(0);
    /// A time that is never reached.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// The time `d` later; saturates at [`Mono::NEVER`].
    #[must_use]
    pub fn after(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(micros(d)))
    }

    /// How long ago `earlier` was; zero if it is not in the past.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// What the reactor read from the clocks at the start of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic: expiry, intervals and deadlines use this one.
    pub mono: Mono,
    /// Wall clock, microseconds since the Unix epoch: freshness of announcements uses this one.
    pub unix_us: i64,
}

/// `d` in whole microseconds, saturating.
#[must_use]
pub fn micros(d: Duration) -> u64 {
    let seconds = d.as_secs().saturating_mul(1_000_000);
    // Most are whole seconds, which spares a division.
    if d.subsec_nanos() == 0 { seconds } else { seconds.saturating_add(u64::from(d.subsec_micros())) }
}

/// A time in seconds: `{}` to the microsecond without zeros at the end, `{:.1}` rounded to tenths.
///
/// Digits by whole numbers: those of floating point are exact for 300 places, and big.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = micros(self.0);
        if f.precision().is_some() {
            let tenths = us.saturating_add(50_000) / 100_000;
            return write!(f, "{}.{}", tenths / 10, tenths % 10);
        }
        let digits = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
        f.write_str(digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds() {
        let rows = [(0, "0", "0.0"), (30_000, "30", "30.0"), (1_250, "1.25", "1.3"), (149, "0.149", "0.1")];
        for (ms, exact, rounded) in rows {
            let time = Seconds(Duration::from_millis(ms));
            assert_eq!((time.to_string().as_str(), format!("{time:.1}").as_str()), (exact, rounded));
        }
    }
}
