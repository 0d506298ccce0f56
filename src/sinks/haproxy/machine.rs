//! The decisions about one backend of one HAProxy: what to ask next, and what the answer means.
//!
//! A cycle is: read everything, compare with what is wanted, change a few servers (one line and one connection
//! each), read again; until a comparison finds nothing to do. Only reading back counts: an answer explains a failure, it never
//! proves a success. Pure: no socket, no clock, no log; the service sends the lines, brings the replies, and
//! prints the news.

use super::commands::{Site, free_id};
use super::notes::{Limits, Note, State};
use super::replies::{Answer, Process, Row, Snapshot, Unread, answer, snapshot};
use crate::clock::{Mono, micros};
use crate::sinks::Want;
use crate::sinks::diff::{Change, Goal, Have, Level, Step, diff};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How often, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two looks when nothing happens.
    pub every: Duration,
    /// From a goodbye until the server is taken out whatever still runs there.
    pub grace: Duration,
}

/// What the machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Todo {
    /// Send this line on a connection of its own; then [`Machine::answered`] or [`Machine::failed`].
    Send(String),
    /// Nothing before that time (a change of the table aside).
    Wait(Mono),
}

/// One line for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Something is wrong; otherwise something has changed.
    pub warn: bool,
    /// Without the sink's name.
    pub text: String,
}

/// One backend, as we drive it.
#[derive(Debug)]
pub struct Machine {
    site: Site,
    pace: Pace,
    phase: Phase,
    process: Option<Process>,
    notes: BTreeMap<SocketAddr, Note>,
    trouble: Option<Trouble>,
    warned: Option<(String, Mono)>,
    news: Vec<News>,
}

#[derive(Debug)]
enum Phase {
    Idle { until: Mono },
    Reading,
    Looked(Snapshot),
    Changing { now: Option<Change<SocketAddr>>, then: VecDeque<(Change<SocketAddr>, String)> },
}

/// HAProxy does not answer, or not as it should.
#[derive(Debug)]
struct Trouble {
    text: String,
    repeats: u32,
    /// It reads but does not write: a successful read is no sign that it is over.
    writing: bool,
}

impl Machine {
    /// A machine that has seen nothing yet; its first [`Machine::next`] reads.
    #[must_use]
    pub fn new(site: Site, pace: Pace) -> Machine {
        Machine {
            site,
            pace,
            phase: Phase::Idle { until: Mono::ZERO },
            process: None,
            notes: BTreeMap::new(),
            trouble: None,
            warned: None,
            news: Vec::new(),
        }
    }

    /// Goes on with another configuration: the memory stays if it is about the same servers.
    pub fn reconfigure(&mut self, site: Site, pace: Pace) {
        let fresh = Machine::new(site, pace);
        if (&self.site.backend, &self.site.prefix) == (&fresh.site.backend, &fresh.site.prefix) {
            let (process, notes) = (self.process, std::mem::take(&mut self.notes));
            *self = Machine { process, notes, ..fresh };
        } else {
            *self = fresh;
        }
    }

    /// The table has changed: looks at once, unless HAProxy is in trouble.
    pub fn members_changed(&mut self, now: Mono) {
        if let (Phase::Idle { until }, None) = (&mut self.phase, &self.trouble) {
            *until = now.min(*until);
        }
    }

    /// What to do now.
    pub fn next(&mut self, want: &Want, now: Mono) -> Todo {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Reading) {
                Phase::Idle { until } if now < until => {
                    self.phase = Phase::Idle { until };
                    return Todo::Wait(until);
                }
                Phase::Idle { .. } => return Todo::Send(self.site.read()),
                Phase::Reading => return Todo::Wait(Mono::NEVER),
                Phase::Looked(snapshot) => self.phase = self.decide(&snapshot, want, now),
                Phase::Changing { now: None, mut then } => match then.pop_front() {
                    Some((change, line)) => {
                        self.phase = Phase::Changing { now: Some(change), then };
                        return Todo::Send(line);
                    }
                    None => self.phase = Phase::Idle { until: now },
                },
                waiting @ Phase::Changing { now: Some(_), .. } => {
                    self.phase = waiting;
                    return Todo::Wait(Mono::NEVER);
                }
            }
        }
    }

    /// The whole reply to the line sent last. `random` spreads out the retries of several machines.
    pub fn answered(&mut self, reply: &[u8], now: Mono, random: u64) {
        match std::mem::replace(&mut self.phase, Phase::Reading) {
            Phase::Reading => match snapshot(reply, &self.site.backend).map_err(|why| self.unread(&why)) {
                Ok(seen) if seen.stopping => self.failed("the old process answered", now, random),
                Ok(seen) if too_old(seen.version) => {
                    let (major, minor) = seen.version;
                    let why = format!("HAProxy {major}.{minor} is too old: 2.6 or later is needed");
                    self.failed(&why, now, random);
                }
                Ok(seen) => self.looked(seen, now),
                Err(why) => self.failed(&why, now, random),
            },
            Phase::Changing { now: Some(change), then } => {
                let answer = answer(reply);
                if answer == Answer::Permission {
                    self.phase = Phase::Changing { now: Some(change), then };
                    self.failed(&Unread::Permission.to_string(), now, random);
                } else {
                    self.phase = Phase::Changing { now: None, then };
                    self.heard(change, answer);
                }
            }
            unasked => self.phase = unasked,
        }
    }

    /// No reply: HAProxy is away, slow, or not what we expected. Tries again later, ever later.
    pub fn failed(&mut self, why: &str, now: Mono, random: u64) {
        let mut writing = self.trouble.as_ref().is_some_and(|trouble| trouble.writing);
        if let Phase::Changing { now: Some(change), then } = &self.phase {
            writing = true;
            let lost = std::iter::once(change).chain(then.iter().map(|(change, _)| change));
            for (place, change) in lost.enumerate() {
                self.notes.entry(change.key).or_default().lost(place == 0, now);
            }
        }
        let repeats = self.trouble.as_ref().map_or(0, |trouble| trouble.repeats.saturating_add(1));
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != why) {
            self.news.push(News { warn: true, text: why.to_owned() });
        }
        self.trouble = Some(Trouble { text: why.to_owned(), repeats, writing });
        self.phase = Phase::Idle { until: now.after(back_off(repeats, random)) };
    }

    /// What has happened since the last call, for the log.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Where the server for `addr` stood at the last look, and what is wrong with it.
    #[must_use]
    pub fn view(&self, addr: SocketAddr) -> (State, Option<&str>) {
        let (state, error) =
            self.notes.get(&addr).map_or((State::Absent, None), |note| (note.state, note.error.as_deref()));
        (state, self.trouble.as_ref().map(|trouble| trouble.text.as_str()).or(error))
    }

    /// What keeps HAProxy from being driven, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|trouble| trouble.text.as_str())
    }

    fn unread(&self, why: &Unread) -> String {
        match why {
            Unread::NoBackend => format!("{why}: {}", self.site.backend),
            _ => why.to_string(),
        }
    }

    /// A change was answered: HAProxy is there and lets us write.
    fn heard(&mut self, change: Change<SocketAddr>, answer: Answer) {
        self.recovered();
        let note = self.notes.entry(change.key).or_default();
        match answer {
            Answer::Exists => note.owned = false,
            Answer::Refused(text) => note.said = Some(text),
            Answer::Done | Answer::Gone | Answer::Permission => {}
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.tell("HAProxy is back".to_owned());
        }
    }

    fn tell(&mut self, text: String) {
        self.news.push(News { warn: false, text });
    }

    /// A fresh look: who answered, and what has become of our servers.
    fn looked(&mut self, seen: Snapshot, now: Mono) {
        if self.trouble.as_ref().is_some_and(|trouble| !trouble.writing) {
            self.recovered();
        }
        let before = self.process.replace(seen.process);
        if before.is_some_and(|before| before != seen.process) {
            self.notes.values_mut().for_each(Note::forgotten);
            self.warned = None;
            self.tell("HAProxy was reloaded or restarted: adding its servers again".to_owned());
        }
        let mut absent: BTreeSet<SocketAddr> = self.notes.keys().copied().collect();
        for (addr, row) in self.rows(&seen) {
            absent.remove(&addr);
            let note = self.notes.entry(addr).or_default();
            note.owned |= before.is_none();
            note.found = before.is_none();
            if is_at(row, addr) {
                note.observe(row, now);
            }
        }
        for addr in absent {
            self.notes.entry(addr).or_default().absent();
        }
        if before.is_none() {
            let (major, minor) = seen.version;
            let found = self.notes.len();
            self.tell(format!(
                "following backend {} of HAProxy {major}.{minor}, {found} server(s) of ours there",
                self.site.backend
            ));
        }
        self.phase = Phase::Looked(seen);
    }

    /// The rows whose names are ours.
    fn rows<'a>(&self, seen: &'a Snapshot) -> Vec<(SocketAddr, &'a Row)> {
        seen.rows.iter().filter_map(|row| Some((self.site.addr(&row.name)?, row))).collect()
    }

    /// Compares, and lines up the first changes; or finds nothing to do for a while.
    fn decide(&mut self, seen: &Snapshot, want: &Want, now: Mono) -> Phase {
        let rows: BTreeMap<SocketAddr, &Row> = self.rows(seen).into_iter().collect();
        self.notes.retain(|addr, _| want.servers.contains_key(addr) || rows.contains_key(addr));
        let limits = Limits { grace: self.pace.grace, quiet: quiet(seen.version) };
        let mut have = BTreeMap::new();
        for (&addr, &row) in &rows {
            let note = self.notes.entry(addr).or_default();
            have.insert(addr, if is_at(row, addr) { note.have(row, &limits, now) } else { FOREIGN });
        }
        let changes = diff(&want.servers, &have, want.settled);
        if changes.is_empty() {
            self.recovered();
        }
        let mut until = now.after(self.pace.every);
        let mut taken: BTreeSet<u32> = seen.rows.iter().map(|row| row.id).collect();
        let mut lines = VecDeque::new();
        let mut errors = BTreeMap::new();
        for change in changes {
            let from = have.get(&change.key).map(|have| have.level);
            let note = self.notes.entry(change.key).or_default();
            if let Some(again_at) = note.blocked(change.step, from, now) {
                until = until.min(again_at);
                errors.insert(change.key, note.complaint(change.step));
            } else if lines.len() < BATCH {
                note.attempt(change.step, from, now);
                let checks = rows.get(&change.key).is_some_and(|row| row.has_checks());
                lines.push_back((change, self.line(change, checks && from == Some(Level::Down), &mut taken)));
            }
        }
        self.report(&rows, &have, want, &mut errors, now);
        if lines.is_empty() {
            Phase::Idle { until: until.min(self.next_look(&have, want, now)) }
        } else {
            Phase::Changing { now: None, then: lines }
        }
    }

    /// The words for one change. `unchecked`: the server's checks have rested, so they come first.
    fn line(&mut self, change: Change<SocketAddr>, unchecked: bool, taken: &mut BTreeSet<u32>) -> String {
        let (site, addr) = (&self.site, change.key);
        match change.step {
            Step::Add(weight) => {
                let note = self.notes.entry(addr).or_default();
                note.owned = true;
                let id = free_id(&site.name(addr), |id| taken.contains(&id));
                taken.insert(id);
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

    /// When to look again although nothing is to be done: soon while a first check or the end of a drain is awaited.
    fn next_look(&self, have: &BTreeMap<SocketAddr, Have>, want: &Want, now: Mono) -> Mono {
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
        rows: &BTreeMap<SocketAddr, &Row>,
        have: &BTreeMap<SocketAddr, Have>,
        want: &Want,
        errors: &mut BTreeMap<SocketAddr, String>,
        now: Mono,
    ) {
        let mut news = Vec::new();
        let mut warnings = Vec::new();
        for (&addr, note) in &mut self.notes {
            let wanted = matches!(want.servers.get(&addr), Some(Goal::Up(_)));
            note.refill &= wanted;
            let state = match (rows.get(&addr), have.get(&addr)) {
                (Some(row), Some(have)) => state(row, have, addr, wanted),
                _ => State::Absent,
            };
            let error = errors.remove(&addr).or_else(|| match state {
                State::Foreign if wanted => Some(format!("balancer add failed: {state}")),
                State::Failing => Some("health check failed".to_owned()),
                _ => None,
            });
            let weight = have.get(&addr).filter(|_| state == State::Up).map_or(0, |have| have.weight);
            if (note.state, note.weight) != (state, weight) && !std::mem::take(&mut note.found) {
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
            (note.state, note.weight, note.error) = (state, weight, error);
        }
        news.into_iter().for_each(|text| self.tell(text));
        warnings.into_iter().for_each(|(addr, error)| self.warn(addr, error, now));
    }

    /// Warns about one server, unless the same was just said of another: one wrong option fails for all of them.
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

fn is_at(row: &Row, addr: SocketAddr) -> bool {
    row.addr == Some(addr.ip()) && row.port == addr.port()
}

/// `add server` grew up in 2.6.
fn too_old(version: (u16, u16)) -> bool {
    version < (2, 6) && version != (0, 0)
}

/// How long a server is without connections before it is deleted. Below 2.9 HAProxy itself does not look whether a
/// stream still points at it (haproxy#2298).
fn quiet(version: (u16, u16)) -> Duration {
    if version < (2, 9) { Duration::from_secs(30) } else { Duration::from_secs(5) }
}

/// 0.25 to 30 s, ever longer, and never the same for two machines.
fn back_off(repeats: u32, random: u64) -> Duration {
    let longest = (FIRST_BACK_OFF * 2_u32.saturating_pow(repeats.min(10))).min(LONGEST_BACK_OFF);
    let half = micros(longest) / 2;
    Duration::from_micros(half + random % half)
}

/// A server with a name of ours at another address: somebody else's, not touched.
const FOREIGN: Have =
    Have { level: Level::Operator, weight: 0, owned: false, drained: false, removable: false };

/// Changes between two looks: enough that a refill of hundreds reads little, few enough that none acts on old news.
const BATCH: usize = 16;
const DRAIN_POLL: Duration = Duration::from_secs(1);
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
const SAME_WARNING: Duration = Duration::from_secs(60);
