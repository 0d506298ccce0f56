//! The decisions about one backend of one HAProxy: what to ask next, and what the answer means.
//!
//! A cycle is: read everything, compare with what is wanted, change a few servers (one line and one
//! connection each), read again; until a comparison finds nothing to do. Only reading back counts: an answer
//! explains a failure, it never proves a success. In between it asks once a second whether it is still the
//! same HAProxy, for a reload empties the backend and tells nobody. Pure: no socket, no clock, no log; the
//! service sends the lines, brings the replies, and prints the news.

mod decide;

use super::commands::Site;
use super::notes::{Note, State};
use super::replies::{Answer, Process, Row, Snapshot, Unread, answer, process, snapshot};
use crate::clock::Mono;
use crate::sinks::diff::Change;
pub use crate::sinks::trouble::News;
use crate::sinks::{Want, back_off};
use crate::sorted::Sorted;
use std::collections::VecDeque;
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

/// One backend, as we drive it.
#[derive(Debug)]
pub struct Machine {
    site: Site,
    pace: Pace,
    phase: Phase,
    process: Option<Process>,
    notes: Sorted<SocketAddr, Note>,
    trouble: Option<Trouble>,
    warned: Option<(String, Mono)>,
    news: Vec<News>,
    views_moved: bool,
}

#[derive(Debug)]
enum Phase {
    /// Asks at `until` whether it is still the same HAProxy, and reads everything at `look_at`.
    Idle {
        until: Mono,
        look_at: Mono,
    },
    Asking {
        look_at: Mono,
    },
    Reading,
    Looked(Snapshot),
    Changing {
        now: Option<Change<SocketAddr>>,
        then: VecDeque<(Change<SocketAddr>, String)>,
    },
}

impl Phase {
    /// Rests until it reads everything.
    fn look_at(at: Mono) -> Phase {
        Phase::Idle { until: at, look_at: at }
    }
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
            phase: Phase::look_at(Mono::ZERO),
            process: None,
            notes: Sorted::default(),
            trouble: None,
            warned: None,
            news: Vec::new(),
            views_moved: false,
        }
    }

    /// Goes on with another configuration: the memory stays if it is about the same servers. The line under way is
    /// lost, and no more at fault for it than those that were still to be sent.
    pub fn reconfigure(&mut self, site: Site, pace: Pace) {
        self.lost(false, Mono::ZERO);
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
        match &mut self.phase {
            Phase::Idle { .. } if self.trouble.is_none() => self.phase = Phase::look_at(now),
            Phase::Asking { look_at } => *look_at = now,
            _ => {}
        }
    }

    /// What to do now.
    pub fn next(&mut self, want: &Want<SocketAddr>, now: Mono) -> Todo {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Reading) {
                Phase::Idle { until, look_at } if now < until => {
                    self.phase = Phase::Idle { until, look_at };
                    return Todo::Wait(until);
                }
                Phase::Idle { look_at, .. } if now < look_at => {
                    self.phase = Phase::Asking { look_at };
                    return Todo::Send(self.site.ask());
                }
                Phase::Idle { .. } => return Todo::Send(self.site.read()),
                Phase::Looked(snapshot) => self.phase = self.decide(&snapshot, want, now),
                Phase::Changing { now: None, mut then } => match then.pop_front() {
                    Some((change, line)) => {
                        self.phase = Phase::Changing { now: Some(change), then };
                        return Todo::Send(line);
                    }
                    None => self.phase = Phase::look_at(now),
                },
                waiting @ (Phase::Asking { .. } | Phase::Reading | Phase::Changing { now: Some(_), .. }) => {
                    self.phase = waiting;
                    return Todo::Wait(Mono::NEVER);
                }
            }
        }
    }

    /// The whole reply to the line sent last. `random` spreads out the retries of several machines.
    pub fn answered(&mut self, reply: &[u8], now: Mono, random: u64) {
        match std::mem::replace(&mut self.phase, Phase::Reading) {
            Phase::Asking { look_at } => match process(reply) {
                Ok(same) if self.process == Some(same) => {
                    self.phase = Phase::Idle { until: look_at.min(now.after(PULSE)), look_at };
                }
                Ok(_) => self.phase = Phase::look_at(now),
                Err(why) => self.failed(&why.to_string(), now, random),
            },
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
                    // It is not about this change: nothing is to be held against the member.
                    self.notes.or_default(change.key).tried.lost(false, now);
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
        let writing = self.lost(true, now) || self.trouble.as_ref().is_some_and(|trouble| trouble.writing);
        let repeats = self.trouble.as_ref().map_or(0, |trouble| trouble.repeats.saturating_add(1));
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != why) {
            self.news.push(News { warn: true, text: why.to_owned() });
        }
        self.trouble = Some(Trouble { text: why.to_owned(), repeats, writing });
        self.views_moved = true;
        self.phase = Phase::look_at(now.after(back_off(repeats, random)));
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

    /// Whether [`Machine::view`] may have changed since this was last asked.
    pub fn views_moved(&mut self) -> bool {
        std::mem::take(&mut self.views_moved)
    }

    fn unread(&self, why: &Unread) -> String {
        match why {
            Unread::NoBackend => format!("{why}: {}", self.site.backend),
            _ => why.to_string(),
        }
    }

    /// Forgets that the changes of this phase were tried, and says whether there were any. If it was `sent`, the first
    /// may be at fault.
    fn lost(&mut self, sent: bool, now: Mono) -> bool {
        let Phase::Changing { now: first, then } = &self.phase else { return false };
        for (place, change) in first.iter().chain(then.iter().map(|(change, _)| change)).enumerate() {
            self.notes.or_default(change.key).tried.lost(sent && place == 0, now);
        }
        true
    }

    /// A change was answered: HAProxy is there and lets us write.
    fn heard(&mut self, change: Change<SocketAddr>, answer: Answer) {
        self.recovered();
        let note = self.notes.or_default(change.key);
        match answer {
            Answer::Exists => note.owned = false,
            Answer::Refused(text) => note.tried.say(text),
            Answer::Done | Answer::Gone | Answer::Permission => {}
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.views_moved = true;
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
            self.notes.iter_mut().for_each(|(_, note)| note.forgotten());
            self.warned = None;
            self.tell("HAProxy was reloaded or restarted: adding its servers again".to_owned());
        }
        let rows = self.rows(&seen);
        let absent = self.notes.iter_mut().filter(|(addr, _)| !rows.contains_key(addr));
        absent.for_each(|(_, note)| note.absent());
        for (&addr, row) in rows.iter() {
            let note = self.notes.or_default(addr);
            note.owned |= before.is_none();
            note.found = before.is_none();
            if is_at(row, addr) {
                note.observe(row, now);
            }
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
    fn rows<'a>(&self, seen: &'a Snapshot) -> Sorted<SocketAddr, &'a Row> {
        seen.rows.iter().filter_map(|row| Some((self.site.addr(&row.name)?, row))).collect()
    }
}

fn is_at(row: &Row, addr: SocketAddr) -> bool {
    row.addr == Some(addr.ip()) && row.port == addr.port()
}

/// `add server` grew up in 2.6.
fn too_old(version: (u16, u16)) -> bool {
    version < (2, 6) && version != (0, 0)
}

/// How soon a reload is noticed; until then a backend of run-time servers alone answers 503.
const PULSE: Duration = Duration::from_secs(1);
