//! Comparing: from what Apache has and what the table wants to the next change, or to a time of rest; and what to tell
//! of it.

use super::super::commands::{Verb, body, member};
use super::super::page::{Balancer, Worker};
use super::{Evict, Machine, News, Phase};
use crate::clock::Mono;
use crate::sinks::Want;
use crate::sinks::diff::{Change, Goal, Have, Level, Step, diff};
use crate::sinks::machine::{Machine as _, Todo};
use crate::sorted::Sorted;
use crate::url::Url;
use crate::views::ViewState;
use std::time::Duration;

type Rows<'a> = Sorted<String, &'a Worker>;
type Haves = Sorted<String, Have>;

impl Machine {
    /// Compares, and asks for the next change; nothing where the next phase says more.
    pub(super) fn decide(&mut self, seen: Balancer, want: &Want<String>, now: Mono) -> Option<Todo> {
        let rows = rows(&seen);
        if self.doubted.take_if(|key| rows.contains_key(key.as_str())).is_none() && self.doubted.is_some() {
            self.phase = Phase::Search(seen);
            return None;
        }
        let have = self.have(&rows, want, now);
        let goals = want.servers.iter().map(|(key, goal)| (key.clone(), self.goal(*goal)));
        let changes = diff(&goals.collect(), &have, want.settled);
        if !changes.is_empty() && self.nonce.as_deref() == Some("") {
            self.failed(READ_ONLY, now, 0);
            return None;
        }
        self.recovered();
        let mut until = now.after(self.door.every).min(self.end_of_drain(&have, want, now));
        let mut errors = Sorted::default();
        let next = self.first(changes, &have, &mut errors, &mut until, now);
        self.report(&rows, &have, errors, now);
        self.notes.retain(|key| want.servers.contains_key(key) || rows.contains_key(key.as_str()));
        let Some(change) = next else {
            self.phase = Phase::Idle { look_at: until };
            return None;
        };
        let Some(nonce) = self.nonce.clone() else {
            self.phase = Phase::Search(seen);
            return None;
        };
        let from = have.get(&change.key).map(|have| have.level);
        let name = rows.get(&change.key).map_or(change.key.as_str(), |worker| worker.name.as_str());
        let body = body(verb(change.step), &self.door.balancer, &nonce, name);
        let note = self.notes.or_default(change.key.clone());
        note.tried.attempt(change.step, from, now);
        match change.step {
            Step::Add(_) => (note.owned, note.held) = (true, true),
            Step::Drain | Step::Disable | Step::Remove => note.held = true,
            Step::Enable(_) | Step::Weight(_) => {}
        }
        let Some(body) = body else {
            note.tried.say("longer than what Apache reads of a request".to_owned());
            self.phase = Phase::Looked(seen);
            return None;
        };
        self.last = Some(change.key.clone());
        self.phase = Phase::Changing(change);
        Some(self.ask("", Some(body)))
    }

    /// What the table's goal comes to here.
    fn goal(&self, goal: Goal) -> Goal {
        match goal {
            Goal::Up(0) => Goal::Drain,
            Goal::Up(weight) => Goal::Up(weight.min(HEAVIEST)),
            Goal::Out if self.door.evict == Evict::Drain => Goal::Drain,
            Goal::Out | Goal::Drain => goal,
        }
    }

    /// Where our members are. Those that the table has never named are not among them.
    fn have(&mut self, rows: &Rows<'_>, want: &Want<String>, now: Mono) -> Haves {
        for (_, note) in self.notes.iter_mut().filter(|(key, _)| !rows.contains_key(key.as_str())) {
            note.absent();
        }
        let mut have = Sorted::default();
        for (key, worker) in rows.iter() {
            let wanted = want.servers.get(key.as_str());
            if wanted.is_some() || self.notes.contains_key(key.as_str()) {
                let note = self.notes.or_default(key.clone());
                note.owned |= wanted.is_some();
                note.observe(worker, now);
                let stays = self.door.evict == Evict::Drain || matches!(wanted, Some(Goal::Up(_)));
                have.insert(key.clone(), note.have(worker, stays, now));
            }
        }
        have
    }

    /// The first change that is not to wait; errors and the end of waiting of the others.
    fn first(
        &mut self,
        changes: Vec<Change<String>>,
        have: &Haves,
        errors: &mut Sorted<String, String>,
        until: &mut Mono,
        now: Mono,
    ) -> Option<Change<String>> {
        let mut next: Option<Change<String>> = None;
        for change in changes {
            let from = have.get(&change.key).map(|have| have.level);
            let note = self.notes.or_default(change.key.clone());
            if let Some(again_at) = note.tried.blocked(change.step, from, now) {
                *until = (*until).min(again_at);
                errors.insert(change.key, note.tried.complaint(change.step));
                continue;
            }
            if let Some(error) = note.error.clone().filter(|_| note.tried.repeats(change.step, from)) {
                errors.insert(change.key.clone(), error);
            }
            // What was added is enabled before another is added.
            if next.is_none() || self.last.as_ref() == Some(&change.key) {
                next = Some(change);
            }
        }
        next
    }

    /// When to look whether a member that said goodbye has finished.
    fn end_of_drain(&self, have: &Haves, want: &Want<String>, now: Mono) -> Mono {
        let awaited = have.iter().any(|(key, have)| {
            let leaves = match want.servers.get(key) {
                Some(goal) => !matches!(goal, Goal::Up(_)),
                None => want.settled && have.owned,
            };
            leaves && have.level == Level::Draining
        });
        if awaited && self.door.evict == Evict::Disable { now.after(DRAIN_POLL) } else { Mono::NEVER }
    }

    /// Takes down where every member stands, and tells what is new.
    fn report(&mut self, rows: &Rows<'_>, have: &Haves, mut errors: Sorted<String, String>, now: Mono) {
        let mut news = Vec::new();
        let mut warnings = Vec::new();
        for (key, note) in self.notes.iter_mut() {
            let error = errors.remove(key.as_str());
            let state = match (rows.get(key.as_str()), have.get(key.as_str())) {
                (Some(worker), Some(have)) => Some(state(worker, have)),
                _ if error.is_some() => Some(ViewState::Refused),
                _ => None,
            };
            let unusable = rows.get(key.as_str()).is_some_and(|worker| !worker.status.ok);
            let failing = state == Some(ViewState::Down) && have.get(key.as_str()).is_some_and(is_up);
            let shown = state.map(|state| (state, weight(state, have.get(key.as_str()))));
            if shown != note.shown && state != Some(ViewState::Refused) {
                news.push(line(key, shown, failing));
            }
            if let Some(error) = error.as_ref().filter(|error| note.error.as_ref() != Some(error)) {
                warnings.push((key.clone(), error.clone()));
            }
            let error =
                error.or_else(|| (failing && unusable).then(|| "Apache cannot connect to it".to_owned()));
            self.views_moved |= note.shown != shown || note.error != error;
            (note.shown, note.error) = (shown, error);
        }
        news.into_iter().for_each(|text| self.tell(text));
        warnings.into_iter().for_each(|(key, error)| self.warn(&key, error, now));
    }

    /// Warns about one member, unless the same was just said of another: without room it fails for all of them.
    fn warn(&mut self, key: &str, error: String, now: Mono) {
        if self.warned.as_ref().is_some_and(|(last, until)| *last == error && now < *until) {
            return;
        }
        self.news.push(News { warn: true, text: format!("{key}: {error}") });
        self.warned = Some((error, now.after(SAME_WARNING)));
    }
}

/// The members by the names that we would give them; of two with one name Apache changes the first.
pub(super) fn rows(seen: &Balancer) -> Rows<'_> {
    let named = seen.workers.iter().rev();
    let named = named.filter_map(|worker| Some((Url::parse(worker.name.as_bytes()).ok()?, worker)));
    named.map(|(url, worker)| (member(&url), worker)).collect()
}

/// Whether a member is as a change should have made it.
pub(super) fn took_effect(step: Step, worker: &Worker) -> bool {
    let status = worker.status;
    match step {
        Step::Add(_) => true,
        Step::Enable(_) => !status.disabled && !status.draining,
        Step::Weight(weight) => worker.factor == u32::from(weight) * 100,
        Step::Drain => status.draining,
        Step::Disable | Step::Remove => status.disabled,
    }
}

fn verb(step: Step) -> Verb {
    match step {
        Step::Add(_) => Verb::Add,
        Step::Enable(weight) => Verb::Enable(weight),
        Step::Weight(weight) => Verb::Weight(weight),
        Step::Drain => Verb::Drain,
        Step::Disable | Step::Remove => Verb::Disable,
    }
}

/// Where a member stands, for people.
fn state(worker: &Worker, have: &Have) -> ViewState {
    match have.level {
        Level::Up if worker.status.ok => ViewState::Up,
        Level::Up | Level::Down => ViewState::Down,
        Level::Draining | Level::Checking => ViewState::Draining,
        Level::Operator => ViewState::Operator,
    }
}

fn is_up(have: &Have) -> bool {
    have.level == Level::Up
}

fn weight(state: ViewState, have: Option<&Have>) -> u16 {
    have.filter(|_| state == ViewState::Up).map_or(0, |have| have.weight)
}

fn line(key: &str, shown: Option<(ViewState, u16)>, failing: bool) -> String {
    match shown {
        Some((ViewState::Up, weight)) => format!("{key} is up, weight {weight}"),
        Some(_) if failing => format!("{key} is in rotation, but Apache cannot connect to it"),
        Some((ViewState::Draining, _)) => format!("{key} is draining"),
        Some((ViewState::Operator, _)) => format!("{key} is held by the operator"),
        Some(_) => format!("{key} is out of rotation"),
        None => format!("{key} is gone"),
    }
}

/// The largest load factor there is.
const HEAVIEST: u16 = 100;
const DRAIN_POLL: Duration = Duration::from_secs(1);
const SAME_WARNING: Duration = Duration::from_secs(60);
const READ_ONLY: &str = "the balancer takes no changes: nonce=None makes it read-only";
