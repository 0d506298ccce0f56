//! The decisions about the upstreams of one handler of one Caddy: what to ask next, and what the answer means.
//!
//! A cycle is: read the list, compare with what is wanted, write the whole list as it should be, on the condition that it
//! is still what was read; read again. Somebody else was first: read again. A change is a load of the whole
//! configuration, so two are never closer than the least gap. Pure: no socket, no clock, no log.

use super::upstreams::{Upstreams, complaint};
use crate::clock::Mono;
use crate::http1::Response;
use crate::sinks::diff::{Goal, Have, Level, Step, diff};
use crate::sinks::machine::{Ask, Machine as Decides, Todo, status_text};
use crate::sinks::tried::Tried;
use crate::sinks::trouble::{News, Trouble};
use crate::sinks::{Refused, Want};
use crate::sorted::Sorted;
use crate::url::Url;
use crate::views::ViewState;
use std::time::Duration;

/// Where the list is, and how it is driven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Door {
    /// The path of the list.
    pub target: String,
    /// The handler's `@id`.
    pub id: String,
    /// The handler talks TLS to its upstreams.
    pub tls: bool,
    /// Between two looks when nothing happens.
    pub every: Duration,
    /// The least time between two changes.
    pub min_gap: Duration,
}

/// The upstreams of one handler, as we drive them.
#[derive(Debug)]
pub struct Machine {
    door: Door,
    phase: Phase,
    met: bool,
    notes: Sorted<String, Note>,
    looked: Mono,
    /// Before this there is no change.
    free: Mono,
    /// How often in a row somebody else was first.
    races: u32,
    trouble: Trouble,
    warned: Option<(String, Mono)>,
    news: Vec<News>,
    views_moved: bool,
}

/// The memory of one upstream. There is one for each that the table has named, so all of them are ours.
#[derive(Clone, Debug, Default)]
struct Note {
    tried: Tried,
    listed: bool,
    error: Option<String>,
}

#[derive(Debug)]
enum Phase {
    Idle {
        look_at: Mono,
    },
    Reading,
    Looked(Upstreams, Option<String>),
    /// The upstreams that are added or taken out.
    Changing(Vec<String>),
}

impl Machine {
    /// A machine that has seen nothing yet; its first [`Decides::next`] reads.
    #[must_use]
    pub fn new(door: Door) -> Machine {
        Machine {
            door,
            phase: Phase::Idle { look_at: Mono::ZERO },
            met: false,
            notes: Sorted::default(),
            looked: Mono::ZERO,
            free: Mono::ZERO,
            races: 0,
            trouble: Trouble::default(),
            warned: None,
            news: Vec::new(),
            views_moved: false,
        }
    }

    /// Compares, and asks for the change; or finds nothing to do for a while.
    fn decide(
        &mut self,
        seen: &Upstreams,
        etag: Option<String>,
        want: &Want<String>,
        now: Mono,
    ) -> Option<Todo> {
        let listed: Sorted<String, ()> = seen.dials().map(|dial| (dial.to_owned(), ())).collect();
        for (key, _) in want.servers.iter() {
            self.notes.or_default(key.clone());
        }
        for (_, note) in self.notes.iter_mut().filter(|(key, _)| listed.contains_key(key.as_str())) {
            note.tried.present();
        }
        let ours = listed.iter().filter(|(key, ())| self.notes.contains_key(key.as_str()));
        let have: Sorted<String, Have> = ours.map(|(key, ())| (key.clone(), LISTED)).collect();
        let goals = want.servers.iter().map(|(key, goal)| (key.clone(), self::goal(*goal)));
        let mut changes = diff(&goals.collect(), &have, want.settled);
        let mut until = now.after(self.door.every);
        let mut errors = Sorted::default();
        changes.retain(|change| {
            let from = have.get(&change.key).map(|have| have.level);
            let note = self.notes.or_default(change.key.clone());
            if let Some(error) = note.error.clone().filter(|_| note.tried.repeats(change.step, from)) {
                errors.insert(change.key.clone(), error);
            }
            let again_at = note.tried.blocked(change.step, from, now);
            if let Some(again_at) = again_at {
                until = until.min(again_at);
                errors.insert(change.key.clone(), note.tried.complaint(change.step));
            }
            again_at.is_none()
        });
        self.report(&listed, errors, now);
        self.notes.retain(|key| want.servers.contains_key(key) || listed.contains_key(key));
        if changes.is_empty() || now < self.free {
            let look_at = if changes.is_empty() { until } else { until.min(self.free) };
            self.phase = Phase::Idle { look_at };
            return None;
        }
        let (mut away, mut more) = (Vec::new(), Vec::new());
        for change in &changes {
            let from = have.get(&change.key).map(|have| have.level);
            self.notes.or_default(change.key.clone()).tried.attempt(change.step, from, now);
            let side = if matches!(change.step, Step::Add(_)) { &mut more } else { &mut away };
            side.push(change.key.as_str());
        }
        let body = seen.changed(&away, &more);
        // Already now: who inherits while it is under way must keep the gap, too.
        self.free = now.after(self.door.min_gap);
        self.phase = Phase::Changing(changes.into_iter().map(|change| change.key).collect());
        Some(self.ask(if seen.missing { "PUT" } else { "PATCH" }, etag, Some(body)))
    }

    fn ask(&self, method: &'static str, etag: Option<String>, body: Option<String>) -> Todo {
        let mut headers: Vec<(&str, String)> = etag.into_iter().map(|etag| ("If-Match", etag)).collect();
        if body.is_some() {
            headers.push(("Content-Type", "application/json".to_owned()));
        }
        Todo::Ask(Ask { method, target: self.door.target.clone(), headers, body })
    }

    /// Takes down where every upstream stands, and tells what is new.
    fn report(&mut self, listed: &Sorted<String, ()>, mut errors: Sorted<String, String>, now: Mono) {
        let (mut news, mut warning) = (Vec::new(), None);
        for (key, note) in self.notes.iter_mut() {
            let is_listed = listed.contains_key(key.as_str());
            let error = errors.remove(key.as_str());
            if std::mem::replace(&mut note.listed, is_listed) != is_listed {
                let what = if is_listed { "is in" } else { "is out" };
                news.push(News { warn: false, text: format!("{key} {what}") });
                self.views_moved = true;
            }
            if note.error != error {
                if let Some(error) = &error {
                    warning = Some((key.clone(), error.clone()));
                }
                note.error = error;
                self.views_moved = true;
            }
        }
        self.news.extend(news);
        // One of those that fail alike speaks for all.
        if let Some((key, error)) = warning
            && self.warned.as_ref().is_none_or(|(last, until)| *last != error || now >= *until)
        {
            self.news.push(News { warn: true, text: format!("{key}: {error}") });
            self.warned = Some((error, now.after(SAME_WARNING)));
        }
    }

    fn heard(&mut self, answer: &Response, now: Mono) -> Result<(), String> {
        match (std::mem::replace(&mut self.phase, Phase::Reading), answer.status) {
            (Phase::Reading, 200) => {
                let seen = Upstreams::read(&answer.body).ok_or("the answer is no list of upstreams")?;
                let etag = answer.trailers.get("etag").or_else(|| answer.headers.get("etag"));
                let etag = etag.and_then(|etag| str::from_utf8(etag).ok()).map(str::to_owned);
                if self.trouble.over() {
                    self.views_moved = true;
                    self.tell("Caddy is back".to_owned());
                }
                if !std::mem::replace(&mut self.met, true) {
                    let count = seen.dials().count();
                    self.tell(format!(
                        "following handler {} of Caddy, {count} upstream(s) there",
                        self.door.id
                    ));
                }
                self.looked = now;
                self.phase = Phase::Looked(seen, etag);
            }
            (Phase::Changing(keys), 200..300) => {
                self.races = 0;
                // It is there, for the change was made to what was read. If the next look does not find it, by a restart
                // or by somebody else's change since, nothing has failed.
                keys.iter().for_each(|key| self.notes.or_default(key.clone()).tried.present());
                self.free = now.after(self.door.min_gap);
                self.phase = Phase::Idle { look_at: now };
            }
            (Phase::Changing(keys), 412) => {
                // Somebody else was first, or this very change was, whose answer got lost with a kept connection. Again and
                // again it is somebody between us who alters the ETag, as proxies that compress do, and to go on at once
                // would be to go on for ever.
                self.races = self.races.saturating_add(1);
                let hopeless = self.races > MOST_RACES;
                self.forgive(&keys, hopeless, now);
                if hopeless {
                    keys.iter()
                        .for_each(|key| self.notes.or_default(key.clone()).tried.say(RACED.to_owned()));
                }
                self.free = now.after(self.door.min_gap);
                self.phase = Phase::Idle { look_at: self.free };
            }
            (Phase::Changing(keys), status) => {
                self.free = now.after(self.door.min_gap);
                self.forgive(&keys, true, now);
                return Err(self.refusal(status, &answer.body));
            }
            (_, status) => return Err(self.refusal(status, &answer.body)),
        }
        Ok(())
    }

    fn refusal(&self, status: u16, body: &[u8]) -> String {
        match complaint(body) {
            Some(said) if status == 404 => format!("{said}: give the handler \"@id\": \"{}\"", self.door.id),
            Some(said) => format!("status {status}: {said}"),
            None => status_text(status),
        }
    }

    /// A change may not have happened.
    fn forgive(&mut self, keys: &[String], sent: bool, now: Mono) {
        for key in keys {
            self.notes.or_default(key.clone()).tried.lost(sent, now);
        }
    }

    fn tell(&mut self, text: String) {
        self.news.push(News { warn: false, text });
    }
}

impl Decides for Machine {
    fn place(&self, url: &Url) -> Result<String, Refused> {
        let honoured =
            if self.door.tls { url.scheme() == "https" } else { matches!(url.scheme(), "http" | "h2c") };
        if honoured { Ok(url.authority().to_owned()) } else { Err(Refused::Scheme(url.scheme().to_owned())) }
    }

    fn next(&mut self, want: &Want<String>, now: Mono) -> Todo {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Reading) {
                Phase::Idle { look_at } if now < look_at => {
                    self.phase = Phase::Idle { look_at };
                    return Todo::Wait(look_at);
                }
                Phase::Idle { .. } => return self.ask("GET", None, None),
                Phase::Looked(seen, etag) => {
                    if let Some(todo) = self.decide(&seen, etag, want, now) {
                        return todo;
                    }
                }
                waiting @ (Phase::Reading | Phase::Changing(_)) => {
                    self.phase = waiting;
                    return Todo::Wait(Mono::NEVER);
                }
            }
        }
    }

    fn answered(&mut self, answer: &Response, now: Mono, random: u64) {
        if matches!(self.phase, Phase::Reading | Phase::Changing(_))
            && let Err(why) = self.heard(answer, now)
        {
            self.failed(&why, now, random);
        }
    }

    fn failed(&mut self, why: &str, now: Mono, random: u64) {
        if let Phase::Changing(keys) = std::mem::replace(&mut self.phase, Phase::Reading) {
            // It may have happened all the same, and a change is a load of everything.
            self.free = now.after(self.door.min_gap);
            self.forgive(&keys, true, now);
        }
        let (pause, news) = self.trouble.failed(why, random);
        self.news.extend(news);
        self.views_moved = true;
        self.phase = Phase::Idle { look_at: now.after(pause) };
    }

    fn members_changed(&mut self, now: Mono) {
        if let (Phase::Idle { look_at }, None) = (&mut self.phase, self.trouble.text()) {
            // Within the gap it could only look.
            *look_at = (*look_at).min(self.free.max(now));
        }
    }

    fn closed(&mut self, now: Mono) {
        if let (Phase::Idle { look_at }, None) = (&mut self.phase, self.trouble.text()) {
            *look_at = (*look_at).min(self.looked.after(PULSE).max(now));
        }
    }

    fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    fn view(&self, key: &str) -> (ViewState, Option<&str>) {
        let note = self.notes.get(key);
        let error = note.and_then(|note| note.error.as_deref());
        let state = match note {
            Some(note) if note.listed => ViewState::Up,
            _ => ViewState::Down,
        };
        (state, self.trouble.text().or(error))
    }

    fn views_moved(&mut self) -> bool {
        std::mem::take(&mut self.views_moved)
    }

    fn inherit(&mut self, mut old: Machine) {
        if let Phase::Changing(keys) = std::mem::replace(&mut old.phase, Phase::Reading) {
            old.forgive(&keys, false, Mono::ZERO);
        }
        if old.door.id == self.door.id {
            (self.met, self.notes, self.free) = (old.met, old.notes, old.free);
        }
    }
}

/// Caddy has no weights and no draining: who takes no new connections is not in the list.
fn goal(goal: Goal) -> Goal {
    match goal {
        Goal::Up(1..) => Goal::Up(1),
        Goal::Up(0) | Goal::Drain | Goal::Out => Goal::Out,
    }
}

/// What is in the list takes part.
const LISTED: Have = Have { level: Level::Up, weight: 1, owned: true, drained: true, removable: true };

/// Others may well be first this often, one after the other.
const MOST_RACES: u32 = 3;
const RACED: &str = "the list is always another than was read, or something on the way alters its ETag";
const SAME_WARNING: Duration = Duration::from_secs(60);
/// A server that closes every kept connection is not asked more often than this for it.
const PULSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Asked, Progress, Reader};

    fn answer(text: &str) -> Response {
        match Reader::new(Asked::Body, 1 << 20).feed(text.as_bytes()) {
            Ok(Progress::Done { response, .. }) => response,
            other => panic!("{other:?}"),
        }
    }

    fn door() -> Door {
        Door {
            target: "/id/web/upstreams".to_owned(),
            id: "web".to_owned(),
            tls: false,
            every: Duration::from_secs(5),
            min_gap: Duration::ZERO,
        }
    }

    #[test]
    fn what_was_added_and_is_gone_at_the_next_look_returns_at_once() {
        let empty = answer("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\n[]");
        let done = answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let want = Want { settled: true, ..Want::of(vec![("10.0.0.5:80".to_owned(), Goal::Up(1))]) };
        let (mut machine, mut now, mut changes) = (Machine::new(door()), Mono::ZERO, Vec::new());
        while changes.len() < 2 {
            match machine.next(&want, now) {
                Todo::Wait(at) => now = at,
                Todo::Ask(ask) if ask.method == "GET" => machine.answered(&empty, now, 0),
                Todo::Ask(_) => {
                    changes.push(now);
                    machine.answered(&done, now, 0);
                }
            }
        }
        assert!(changes[1].since(changes[0]) <= Duration::from_millis(250), "{changes:?}");
    }

    #[test]
    fn a_condition_that_never_holds_is_not_tried_without_end() {
        let list = answer("HTTP/1.1 200 OK\r\nETag: W/\"x\"\r\nContent-Length: 2\r\n\r\n[]");
        let late = answer("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n");
        let want = Want { settled: true, ..Want::of(vec![("10.0.0.5:80".to_owned(), Goal::Up(1))]) };
        let (mut machine, mut now, mut asked) = (Machine::new(door()), Mono::ZERO, 0_u32);
        while now < Mono::ZERO.after(Duration::from_secs(60)) {
            match machine.next(&want, now) {
                Todo::Wait(at) => now = at,
                Todo::Ask(ask) => {
                    asked += 1;
                    assert!(asked < 200, "without end");
                    machine.answered(if ask.method == "GET" { &list } else { &late }, now, 0);
                }
            }
        }
        let (state, error) = machine.view("10.0.0.5:80");
        assert_eq!(state, ViewState::Down);
        assert!(error.is_some_and(|error| error.contains("ETag")), "{error:?}");
        let warned = machine.news().iter().filter(|news| news.warn).count();
        assert!((1..=2).contains(&warned), "{warned}");
    }
}
