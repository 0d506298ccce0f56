//! What is remembered of one server between two looks at HAProxy, and what a row therefore means.
//!
//! A row says where a server is, not who put it there, nor whether a passed check is of today. Weight 0 marks
//! what we hold back ourselves (see `commands`); the rest is memory, and losing it costs time, never traffic.
//! Pure: time comes in.

use super::replies::Row;
use crate::clock::Mono;
use crate::sinks::diff::{Have, Level, Step};
use crate::sinks::tried::Tried;
use std::fmt;
use std::time::Duration;

/// Where a member stands in HAProxy, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// HAProxy has no such server.
    #[default]
    Absent,
    /// Serving.
    Up,
    /// In rotation, but HAProxy's checks fail.
    Failing,
    /// Waiting for its first check to pass.
    Checking,
    /// Finishing what it has.
    Draining,
    /// Held out of rotation by us.
    Down,
    /// Held out of rotation by the operator.
    Operator,
    /// The name is taken by a server with another address; not touched.
    Foreign,
    /// HAProxy would not add it.
    Refused,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Absent => "not in HAProxy",
            State::Up => "up",
            State::Failing => "failing its health checks",
            State::Checking => "waiting for its first health check",
            State::Draining => "draining",
            State::Down => "out of rotation",
            State::Operator => "held by the operator",
            State::Foreign => "a name taken by another address",
            State::Refused => "refused by HAProxy",
        })
    }
}

/// The memory of one server.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Ours to delete: we added it, or it was there at our first look.
    pub owned: bool,
    /// It has passed its checks since it was last out of rotation: its health then. Lower health means that
    /// it was out in between, or has failed a check.
    passed: Option<u32>,
    /// It was serving when HAProxy forgot it: it comes back without waiting.
    pub refill: bool,
    /// What was tried with it.
    pub tried: Tried,
    /// Why it is not as wanted, for `status`.
    pub error: Option<String>,
    /// Where it stood at the last look.
    pub state: State,
    /// Its weight then, while it served.
    pub weight: u16,
    /// It was there before us: where it stands is no news.
    pub found: bool,
    gate: Option<Gate>,
    draining: Option<Mono>,
    quiet: Option<Mono>,
}

/// Waiting for a first check.
#[derive(Clone, Copy, Debug)]
struct Gate {
    since: Mono,
    /// A result from before the wait began would still be shown: this was its health, a new pass raises it.
    stale: Option<u32>,
}

impl Note {
    /// Takes in what a look at HAProxy shows.
    pub fn observe(&mut self, row: &Row, now: Mono) {
        let held = row.in_maint() || row.in_drain();
        let drain = row.in_drain() && !row.in_maint();
        if !held {
            // While a check runs HAProxy shows no result: what was known before still holds.
            if !(row.has_checks() && row.runs() && row.unjudged()) {
                self.passed = (row.passed() || !row.has_checks()).then_some(row.check_health);
                self.refill = false;
            }
        } else if row.in_maint() || self.passed.is_some_and(|health| row.check_health < health) {
            self.passed = None;
            self.refill &= !row.in_maint();
        }
        self.draining = drain.then(|| self.draining.unwrap_or(now));
        self.quiet = (row.in_maint() && row.conns == Some((0, 0))).then(|| self.quiet.unwrap_or(now));
        self.gate = drain.then(|| {
            let stale = row.passed().then_some(row.check_health);
            let gate = self.gate.unwrap_or(Gate { since: now, stale });
            if row.passed() { gate } else { Gate { stale: None, ..gate } }
        });
    }

    /// HAProxy has no such server (yet, or any more).
    pub fn absent(&mut self) {
        self.passed = None;
        (self.gate, self.draining, self.quiet) = (None, None, None);
    }

    /// HAProxy has forgotten everything: another process answers.
    pub fn forgotten(&mut self) {
        *self = Note {
            refill: self.refill || self.passed.is_some() && self.state == State::Up,
            ..Note::default()
        };
    }

    /// Where the server is, for [`crate::sinks::diff`].
    #[must_use]
    pub fn have(&self, row: &Row, limits: &Limits, now: Mono) -> Have {
        let level = self.level(row, now);
        let drained = row.conns.is_some_and(|(used, _)| used == 0)
            || self.draining.is_some_and(|since| now.since(since) >= limits.grace);
        // Between two looks another beacond may have had it in rotation.
        let unchanged = Duration::from_secs(row.unchanged.into()) >= limits.quiet;
        let quiet = unchanged && self.quiet.is_some_and(|since| now.since(since) >= limits.quiet);
        let removable = self.owned && level == Level::Down && quiet;
        Have { level, weight: row.weight, owned: self.owned, drained, removable }
    }

    fn level(&self, row: &Row, now: Mono) -> Level {
        if !row.in_maint() && !row.in_drain() {
            Level::Up
        } else if row.weight != 0 {
            Level::Operator
        } else if row.in_maint() || row.has_checks() && !row.checks_enabled() {
            Level::Down
        } else if !row.has_checks() || self.gate_open(row, now) {
            Level::Draining
        } else {
            Level::Checking
        }
    }

    fn gate_open(&self, row: &Row, now: Mono) -> bool {
        let fresh = |gate: &Gate| {
            gate.stale.is_none_or(|health| row.check_health > health) || now.since(gate.since) >= STALE
        };
        self.passed.is_some() || row.passed() && self.gate.as_ref().is_some_and(fresh)
    }

    /// How soon to look again while it waits for its first check: quickly at first, for a backend that is
    /// about to come up, then at leisure.
    #[must_use]
    pub fn gate_poll(&self, now: Mono) -> Duration {
        let young = self.gate.is_none_or(|gate| now.since(gate.since) < GATE_PATIENCE);
        if young { GATE_POLL } else { GATE_POLL_LATE }
    }

    /// The complaint about this very change, while it is tried again.
    #[must_use]
    pub fn standing_complaint(&self, step: Step, from: Option<Level>) -> Option<String> {
        self.error.clone().filter(|_| self.tried.repeats(step, from))
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A drain is over after this time, whatever still runs.
    pub grace: Duration,
    /// A server is deleted after it has been without connections for this long.
    pub quiet: Duration,
}

/// A result that was there before the wait began counts after this time: checks have run in between.
const STALE: Duration = Duration::from_secs(10);
const GATE_POLL: Duration = Duration::from_millis(100);
const GATE_POLL_LATE: Duration = Duration::from_secs(1);
const GATE_PATIENCE: Duration = Duration::from_secs(30);
