//! Time as plain values. Nothing here reads a clock: the reactor does, once a turn, and hands [`Now`] down.

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
    d.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(d.subsec_micros()))
}
