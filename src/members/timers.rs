//! The members' alarms: deadlines in microseconds brought to the wheel's milliseconds, never early.

use super::BalancerId;
use crate::clock::Mono;
use crate::wheel::{HORIZON, TimerId, Wheel};

/// Why the table wants to be called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// Look at this member.
    Member(BalancerId, u32),
    /// Hearing is back: give those who were held a new deadline.
    Resume(BalancerId),
}

/// A wheel of [`Alarm`]s.
#[derive(Debug, Default)]
pub(super) struct Timers {
    wheel: Wheel<Alarm>,
}

impl Timers {
    pub fn reserve(&mut self, timers: usize) {
        self.wheel.reserve(timers);
    }

    /// Arms for the first millisecond at or after `at`; `None` for a time so far ahead that it never comes.
    pub fn arm(&mut self, at: Mono, alarm: Alarm) -> Option<TimerId> {
        let ms = slot(at);
        (ms < HORIZON).then(|| self.wheel.arm(ms, alarm))
    }

    pub fn cancel(&mut self, id: TimerId) {
        self.wheel.cancel(id);
    }

    pub fn pop(&mut self, now: Mono) -> Option<Alarm> {
        self.wheel.pop(now.0 / US_PER_MS)
    }

    pub fn next(&mut self) -> Option<Mono> {
        self.wheel.next().map(|ms| Mono(ms.saturating_mul(US_PER_MS)))
    }

    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether a timer is armed and fires in time for something that is due at `at`: by then, or at once.
    pub fn in_time(&self, id: TimerId, at: Mono) -> bool {
        self.wheel.deadline(id).is_some_and(|ms| ms <= slot(at).max(self.wheel.current()))
    }

    /// Whether [`Timers::arm`] would arm for this time at all.
    pub fn comes(at: Mono) -> bool {
        slot(at) < HORIZON
    }
}

fn slot(at: Mono) -> u64 {
    at.0.div_ceil(US_PER_MS)
}

const US_PER_MS: u64 = 1000;
