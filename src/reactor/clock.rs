//! The two clocks of the process: the one place that reads them.

use crate::clock::{Mono, Now, micros};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the monotonic clock starts, in microseconds: 30 days, so that a member restored from a file can have been
/// seen before the process was.
const ORIGIN: u64 = 30 * 24 * 3600 * 1_000_000;

/// Reads the clocks.
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the reactor reads the clocks for everybody")]
    pub(super) fn new() -> Clock {
        Clock { started: Instant::now() }
    }

    pub(super) fn read(&self) -> Now {
        Now { mono: self.mono(), unix_us: unix_us() }
    }

    pub(super) fn mono(&self) -> Mono {
        Mono(ORIGIN + micros(self.started.elapsed()))
    }
}

/// Microseconds since the Unix epoch; negative before it.
#[expect(clippy::disallowed_methods, reason = "the reactor reads the clocks for everybody")]
#[must_use]
pub fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let (sign, distance) = since.map_or_else(|before| (-1, before.duration()), |after| (1, after));
    sign * i64::try_from(distance.as_micros()).unwrap_or(i64::MAX)
}
