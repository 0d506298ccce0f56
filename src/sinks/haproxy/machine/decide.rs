//! Comparing: from what HAProxy has and what the table wants to the next few lines, or to a time of rest; and
//! what to tell of it.

use super::super::commands::free_id;
use super::super::notes::{Limits, State};
use super::super::replies::{Row, Snapshot};
use super::{Machine, News, PULSE, Phase, is_at};
use crate::clock::Mono;
use crate::sinks::Want;
use crate::sinks::diff::{Change, Goal, Have, Level, Step, diff};
use crate::sorted::Sorted;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

impl Machine {
    /// Compares, and lines up the first changes; or finds nothing to do for a while.
    pub(super) fn decide(&mut self, seen: &Snapshot, want: &Want<SocketAddr>, now: Mono) -> Phase {
        let rows = self.rows(seen);
        let limits = Limits { grace: self.pace.grace, quiet: quiet(seen.version) };
        let mut have = Sorted::default();
        for (&addr, &row) in rows.iter() {
            let note = self.notes.or_default(addr);
            have.insert(addr, if is_at(row, addr) { note.have(row, &limits, now) } else { FOREIGN });
        }
        let changes = diff(&want.servers, &have, want.settled);
        if changes.is_empty() {
            self.recovered();
        }
        let mut until = now.after(self.pace.every);
        let mut taken: Sorted<u32, ()> = seen.rows.iter().map(|row| (row.id, ())).collect();
        let batch = BATCH.max(seen.rows.len() / 8);
        let mut lines = VecDeque::new();
        let mut errors = Sorted::default();
        for change in changes {
            let from = have.get(&change.key).map(|have| have.level);
            let note = self.notes.or_default(change.key);
            if let Some(again_at) = note.tried.blocked(change.step, from, now) {
                until = until.min(again_at);
                errors.insert(change.key, note.tried.complaint(change.step));
            } else if lines.len() < batch {
                if let Some(error) = note.standing_complaint(change.step, from) {
                    errors.insert(change.key, error);
                }
                note.tried.attempt(change.step, from, now);
                let checks = rows.get(&change.key).is_some_and(|row| row.has_checks());
                lines.push_back((change, self.line(change, checks && from == Some(Level::Down), &mut taken)));
            }
        }
        self.report(&rows, &have, want, errors, now);
        self.notes.retain(|addr| want.servers.contains_key(addr) || rows.contains_key(addr));
        if lines.is_empty() {
            let look_at = until.min(self.next_look(&have, want, now));
            let serving = have.iter().any(|(_, have)| have.level == Level::Up);
            let until = if serving { look_at.min(now.after(PULSE)) } else { look_at };
            Phase::Idle { until, look_at }
        } else {
            Phase::Changing { now: None, then: lines }
        }
    }

    /// The words for one change. `unchecked`: the server's checks have rested, so they come first.
    fn line(&mut self, change: Change<SocketAddr>, unchecked: bool, taken: &mut Sorted<u32, ()>) -> String {
        let (site, addr) = (&self.site, change.key);
        match change.step {
            Step::Add(weight) => {
                let note = self.notes.or_default(addr);
                note.owned = true;
                let id = free_id(&site.name(addr), |id| taken.contains_key(&id));
                taken.insert(id, ());
                let at_once = note.refill || !site.checks();
                if at_once { site.add_ready(addr, id, weight) } else { site.add_checked(addr, id) }
            }
            Step::Enable(_) if unchecked => site.check(addr),
            Step::Enable(weight) => site.ready(addr, weight),
            Step::Weight(weight) => site.weight(addr, weight),
            Step::Drain => site.drain(addr),
            Step::Disable => site.disable(addr),
            Step::Remove => site.remove(addr),
        }
    }

    /// When to look again although nothing is to be done: soon while a first check or the end of a drain is
    /// awaited.
    fn next_look(&self, have: &Sorted<SocketAddr, Have>, want: &Want<SocketAddr>, now: Mono) -> Mono {
        let soon = have.iter().filter_map(|(addr, have)| match (want.servers.get(addr), have.level) {
            (Some(Goal::Up(_)), Level::Checking) => self.notes.get(addr).map(|note| note.gate_poll(now)),
            (Some(Goal::Drain), Level::Draining) => Some(DRAIN_POLL),
            (None, Level::Draining) if want.settled && have.owned => Some(DRAIN_POLL),
            _ => None,
        });
        soon.min().map_or(Mono::NEVER, |pause| now.after(pause))
    }

    /// Takes down where every server stands, and tells what is new.
    fn report(
        &mut self,
        rows: &Sorted<SocketAddr, &Row>,
        have: &Sorted<SocketAddr, Have>,
        want: &Want<SocketAddr>,
        mut errors: Sorted<SocketAddr, String>,
        now: Mono,
    ) {
        let mut news = Vec::new();
        let mut warnings = Vec::new();
        for (&addr, note) in self.notes.iter_mut() {
            let wanted = matches!(want.servers.get(&addr), Some(Goal::Up(_)));
            note.refill &= wanted;
            let state = match (rows.get(&addr), have.get(&addr)) {
                (Some(row), Some(have)) => state(row, have, addr, wanted),
                _ if errors.contains_key(&addr) => State::Refused,
                _ => State::Absent,
            };
            let error = errors.remove(&addr).or_else(|| match state {
                State::Foreign if wanted => Some(format!("balancer add failed: {state}")),
                State::Failing => Some("health check failed".to_owned()),
                _ => None,
            });
            let weight = have.get(&addr).filter(|_| state == State::Up).map_or(0, |have| have.weight);
            let moved = (note.state, note.weight) != (state, weight);
            if moved && state != State::Refused && !std::mem::take(&mut note.found) {
                news.push(match state {
                    State::Up => format!("{addr} is up, weight {weight}"),
                    State::Absent => format!("{addr} is gone"),
                    _ => format!("{addr} is {state}"),
                });
            }
            if let Some(error) = &error
                && note.error.as_ref() != Some(error)
                && state != State::Failing
            {
                warnings.push((addr, error.clone()));
            }
            self.views_moved |= note.state != state || note.error != error;
            (note.state, note.weight, note.error) = (state, weight, error);
        }
        news.into_iter().for_each(|text| self.tell(text));
        warnings.into_iter().for_each(|(addr, error)| self.warn(addr, error, now));
    }

    /// Warns about one server, unless the same was just said of another: one wrong option fails for all of
    /// them.
    fn warn(&mut self, addr: SocketAddr, error: String, now: Mono) {
        if self.warned.as_ref().is_some_and(|(last, until)| *last == error && now < *until) {
            return;
        }
        self.news.push(News { warn: true, text: format!("{addr}: {error}") });
        self.warned = Some((error, now.after(SAME_WARNING)));
    }
}

/// Where a server stands, for people.
fn state(row: &Row, have: &Have, addr: SocketAddr, wanted: bool) -> State {
    match have.level {
        _ if !is_at(row, addr) => State::Foreign,
        Level::Up if row.runs() => State::Up,
        Level::Up => State::Failing,
        Level::Draining if wanted => State::Checking,
        Level::Checking if wanted => State::Checking,
        Level::Checking | Level::Draining => State::Draining,
        Level::Down => State::Down,
        Level::Operator => State::Operator,
    }
}

/// How long a server is without connections before it is deleted. Below 2.9 HAProxy itself does not look
/// whether a stream still points at it (haproxy#2298).
fn quiet(version: (u16, u16)) -> Duration {
    if version < (2, 9) { Duration::from_secs(30) } else { Duration::from_secs(5) }
}

/// A server with a name of ours at another address: somebody else's, not touched.
const FOREIGN: Have =
    Have { level: Level::Operator, weight: 0, owned: false, drained: false, removable: false };

/// Changes between two looks, and an eighth of the backend where that is more: a refill of thousands reads all of it
/// few times, and nothing acts on news older than a fraction of a second.
const BATCH: usize = 16;
const DRAIN_POLL: Duration = Duration::from_secs(1);
const SAME_WARNING: Duration = Duration::from_secs(60);
