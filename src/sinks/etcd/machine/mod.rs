//! The decisions about one balancer's members in etcd: what to ask next, and what the answer means.
//!
//! Level triggered: look at what is there, compare with what the table wants, write the difference, look again. In
//! between only leases are kept alive, many in one request, which etcd writes nowhere; a key is put only when its value
//! is another or its lease has run out. Whoever is evicted here is left to its lease, for others may hear it. Only a
//! goodbye takes keys away, and only one that is newer than all that anybody has heard.
//!
//! A mark beside each member says up to when its announcements have been heard. It goes with whatever is written:
//! nobody with older news can undo what somebody with newer ones did, and a receiver that starts learns which
//! timestamps are replays. Marks hang on leases shared by all that were written in the same period, twice as long as
//! any of them is of use.
//!
//! Pure: no socket, no clock, no log; the service carries calls and answers, and prints the news.

mod decide;
mod note;
mod steps;

use super::layout::{Card, Site, mark_text, read_mark, read_url};
use super::mirror::{Look, Mirror};
use super::wire::{self, Call, Fault};
use crate::clock::{Mono, Now};
use crate::sinks::trouble::News;
use crate::sinks::{Want, back_off};
use crate::sorted::Sorted;
use crate::url::Url;
use note::Note;
use std::collections::VecDeque;
use std::time::Duration;

/// How often.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Between two looks when nothing happens.
    pub every: Duration,
    /// Between two marks of a member that is up: zero for none while it is; not said is a third of the largest skew.
    pub marks: Option<Duration>,
}

/// What the table knows of a member.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// What is published of it.
    pub card: Card,
    /// The silence after which it is evicted; zero for never.
    pub timeout: Duration,
    /// When it was last heard.
    pub last_seen: Mono,
    /// Its replay mark.
    pub mark: Option<i64>,
}

/// What the machine wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Todo {
    /// Send this; then [`Machine::answered`] or [`Machine::failed`].
    Send(Call),
    /// Nothing before that time (a change of the table aside).
    Wait(Mono),
}

/// Where a member stands in etcd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It is there, as it is to be.
    There,
    /// Its keys are there although it is not up here: somebody hears it, or its lease runs out.
    Leaving,
    /// It is not there, or not as it is to be.
    Missing,
}

/// One balancer's members in etcd.
#[derive(Debug)]
pub struct Machine {
    site: Site,
    pace: Pace,
    max_skew: Duration,
    want: Want<Url>,
    notes: Sorted<Url, Note>,
    mirror: Mirror,
    /// The call under way.
    doing: Option<Doing>,
    todo: VecDeque<Step>,
    /// Marks have been read, and these wait to be fetched.
    recalled: bool,
    found: Vec<(Url, i64)>,
    /// The period for whose marks there is a lease.
    period: Option<i64>,
    look_at: Mono,
    /// A look has succeeded since the last failure.
    looked: bool,
    /// Something was written and not looked at since.
    dirty: bool,
    /// How often in a row etcd did not know a lease that it had just granted.
    lost: u32,
    trouble: Option<Trouble>,
    rest_until: Mono,
    closing: bool,
    greeted: bool,
    news: Vec<News>,
    views_moved: bool,
}

/// A call under way.
#[derive(Debug)]
enum Doing {
    Recall,
    Look,
    Grant(Url),
    GrantMarks(i64),
    Put(Vec<(Url, Option<i64>)>),
    Farewell(Vec<(Url, i64)>),
    Revoke(Url),
    Mark(Vec<(Url, i64)>),
    Keep(Vec<Url>),
}

/// One thing to do to one member.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Put(Url),
    Farewell(Url),
    Revoke(Url),
}

/// etcd does not answer, or not as it should.
#[derive(Debug)]
struct Trouble {
    text: String,
    repeats: u32,
    /// It reads but does not write: a successful look is no sign that it is over.
    writing: bool,
}

impl Machine {
    /// A machine that has seen nothing yet; its first call reads the marks.
    #[must_use]
    pub fn new(site: Site, pace: Pace) -> Machine {
        Machine {
            mirror: Mirror::new(site.ranges().collect()),
            site,
            pace,
            max_skew: Duration::from_secs(30),
            want: Want::default(),
            notes: Sorted::default(),
            doing: None,
            todo: VecDeque::new(),
            recalled: false,
            found: Vec::new(),
            period: None,
            look_at: Mono::ZERO,
            looked: false,
            dirty: false,
            lost: 0,
            trouble: None,
            rest_until: Mono::ZERO,
            closing: false,
            greeted: false,
            news: Vec::new(),
            views_moved: false,
        }
    }

    /// The table has changed: looks at once, unless etcd is in trouble.
    pub fn members_changed(&mut self, now: Mono) {
        self.look_at = self.look_at.min(now);
    }

    /// From now on only the marks are written that etcd has not got; see [`Machine::is_done`].
    pub fn close(&mut self) {
        self.closing = true;
        self.todo.clear();
    }

    /// After [`Machine::close`]: nothing more is to be written, or nothing can be.
    #[must_use]
    pub fn is_done(&self, now: Mono) -> bool {
        self.trouble.is_some()
            || (self.doing.is_none() && !self.notes.iter().any(|(_, n)| self.owes_mark(n, now)))
    }

    /// Goes on after whoever carried its calls was replaced: the one under way is lost.
    pub fn resume(&mut self) {
        (self.doing, self.closing, self.looked) = (None, false, false);
        self.todo.clear();
    }

    /// What to do now.
    pub fn next(&mut self, now: Now) -> Todo {
        if self.doing.is_some() {
            return Todo::Wait(Mono::NEVER);
        }
        if now.mono < self.rest_until {
            return Todo::Wait(self.rest_until);
        }
        match self.choose(now) {
            Some((doing, call)) => {
                self.doing = Some(doing);
                Todo::Send(call)
            }
            None if self.closing => Todo::Wait(Mono::NEVER),
            None => Todo::Wait(self.wake_at(now.mono)),
        }
    }

    fn choose(&mut self, now: Now) -> Option<(Doing, Call)> {
        if self.closing {
            return self.mark(now);
        }
        if !self.recalled {
            return Some((Doing::Recall, self.ask_marks()));
        }
        if !self.looked {
            return Some((Doing::Look, self.mirror.ask()));
        }
        if let Some(call) = self.keep(now.mono).or_else(|| self.step(now)) {
            return Some(call);
        }
        if std::mem::take(&mut self.dirty) {
            self.look_at = now.mono;
        }
        // First the look, for a goodbye's mark is to come with the goodbye.
        if now.mono >= self.look_at {
            return Some((Doing::Look, self.mirror.ask()));
        }
        self.mark(now)
    }

    /// The answer to the call sent last. `random` spreads out the retries of several machines.
    pub fn answered(&mut self, status: u16, body: &[u8], now: Now, random: u64) {
        let Some(doing) = self.doing.take() else { return };
        if let Doing::Keep(urls) = doing {
            return match wire::kept(status, body) {
                Ok(kept) if self.kept(&urls, &kept, now.mono) => {}
                Ok(_) => self.fail("etcd says nothing about leases", false, now.mono, random),
                Err(fault) => self.fail(&fault.text, false, now.mono, random),
            };
        }
        let reads = matches!(doing, Doing::Recall | Doing::Look);
        // A lease is soon granted; what counts is whether anything can be hung on it.
        let proves = matches!(doing, Doing::Put(_) | Doing::Farewell(_) | Doing::Mark(_));
        let fault = match wire::reply(status, body) {
            Ok(reply) => match self.take(doing, &reply, now) {
                Ok(()) if proves => {
                    self.lost = 0;
                    self.recovered();
                    None
                }
                Ok(()) => None,
                Err(fault) => Some(fault),
            },
            Err(fault) => self.refused(doing, fault),
        };
        if let Some(fault) = fault {
            self.fail(&fault.text, !reads, now.mono, random);
        }
    }

    /// No answer: etcd is away or slow. Tries again later, ever later, but before the leases of its members could run
    /// out after its return.
    pub fn failed(&mut self, why: &str, now: Mono, random: u64) {
        let writing = self.doing.take().is_some_and(|doing| !matches!(doing, Doing::Recall | Doing::Look));
        self.fail(why, writing && self.trouble.as_ref().is_some_and(|t| t.writing), now, random);
    }

    /// Marks that others remember, read since the last call.
    pub fn found(&mut self) -> Vec<(Url, i64)> {
        std::mem::take(&mut self.found)
    }

    /// What has happened since the last call, for the log.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Where a member stood at the last look, and what is wrong with it.
    #[must_use]
    pub fn view(&self, url: &Url) -> (State, Option<&str>) {
        let trouble = self.trouble.as_ref().map(|trouble| trouble.text.as_str());
        let Some(note) = self.notes.get(url) else { return (State::Missing, trouble) };
        let state = match () {
            () if note.is_up() && note.right => State::There,
            () if !note.is_up() && note.present => State::Leaving,
            () => State::Missing,
        };
        (state, trouble.or(note.error.as_deref()))
    }

    /// Whether [`Machine::view`] may have changed since this was last asked.
    pub fn views_moved(&mut self) -> bool {
        std::mem::take(&mut self.views_moved)
    }

    /// Takes an answer that says no; what is wrong about that, if anything.
    fn refused(&mut self, doing: Doing, fault: Fault) -> Option<Fault> {
        match (doing, fault.code) {
            (Doing::Grant(url), wire::EXISTS) => {
                let note = self.notes.or_default(url);
                // It ran out a moment ago, and is there after all: somebody was faster than we, or etcd is out of its mind.
                note.contested = if note.expired { note.contested.saturating_add(1) } else { 0 };
                if note.contested > MOST_LOST {
                    note.contested = 0;
                    return Some(fault);
                }
                note.assume_lease();
            }
            (Doing::GrantMarks(period), wire::EXISTS) => self.period = Some(period),
            (Doing::Revoke(_), wire::NO_LEASE) => {}
            (doing, wire::NO_LEASE) if self.lost < MOST_LOST => {
                self.lost += 1;
                self.period = None;
                if let Doing::Put(urls) = doing {
                    for (url, _) in urls.into_iter().rev() {
                        self.notes.or_default(url.clone()).ttl = None;
                        self.todo.push_front(Step::Put(url));
                    }
                } else if let Doing::Farewell(urls) = doing {
                    urls.into_iter().rev().for_each(|(url, _)| self.todo.push_front(Step::Farewell(url)));
                }
            }
            _ => return Some(fault),
        }
        None
    }

    fn fail(&mut self, why: &str, writing: bool, now: Mono, random: u64) {
        let repeats = self.trouble.as_ref().map_or(0, |trouble| trouble.repeats.saturating_add(1));
        if self.trouble.as_ref().is_none_or(|trouble| trouble.text != why) {
            self.tell(true, why.to_owned());
        }
        self.trouble = Some(Trouble { text: why.to_owned(), repeats, writing });
        self.views_moved = true;
        self.todo.clear();
        // It may come back restored from a copy, and be past the revision that we know by the time we ask.
        self.mirror.forget();
        (self.looked, self.dirty, self.lost) = (false, false, 0);
        // When etcd returns, its leases have their full time; we are to be back well before that is over.
        let leases = self.notes.iter().map(|(_, note)| Duration::from_secs(note.facts.ttl().into()) / 3);
        let longest = leases.min().unwrap_or(Duration::MAX);
        self.rest_until = now.after(back_off(repeats, random).min(longest));
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            self.views_moved = true;
            self.tell(false, "etcd is back".to_owned());
        }
    }

    fn tell(&mut self, warn: bool, text: String) {
        self.news.push(News { warn, text });
    }

    /// The next time at which anything is due.
    fn wake_at(&self, now: Mono) -> Mono {
        let keeps = self.notes.iter().filter_map(|(_, note)| note.wake_at(now));
        let marks = self.notes.iter().filter_map(|(_, note)| self.mark_at(note, now));
        keeps.chain(marks).chain([self.look_at]).min().unwrap_or(self.look_at)
    }
}

/// So often in a row a lease may have run out between its granting and its use.
const MOST_LOST: u32 = 3;
