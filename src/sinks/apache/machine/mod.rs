//! The decisions about one balancer of one Apache: what to ask next, and what the answer means.
//!
//! A cycle is: read the balancer, compare with what is wanted, change one member; the answer to a change is the balancer
//! as it is then, so that the comparison goes on from there until it finds nothing to do. Only that state counts, never
//! a status: Apache answers 200 to what it ignores, and 400 both to what it has already and to what it has no room for.
//! Pure: no socket, no clock, no log.

mod decide;

use super::commands::{SCHEMES, member};
use super::notes::Note;
use super::page::{Balancer, Links, Unread, links, read};
use crate::clock::Mono;
use crate::http1::Response;
use crate::sinks::diff::{Change, Step};
use crate::sinks::machine::{Ask, Machine as Decides, Todo, status_text};
use crate::sinks::tried::Tried;
use crate::sinks::trouble::{News, Trouble};
use crate::sinks::{Refused, Want, back_off};
use crate::sorted::Sorted;
use crate::url::Url;
use crate::views::ViewState;
use std::time::Duration;

/// Where the balancer is, and how it is driven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Door {
    /// The path of balancer-manager.
    pub target: String,
    /// What Apache wants to see.
    pub referer: String,
    /// Apache's name for the balancer.
    pub balancer: String,
    /// What becomes of members that are gone.
    pub evict: Evict,
    /// Between two looks when nothing happens.
    pub every: Duration,
}

/// What becomes of members that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evict {
    /// They are left to the sessions they have.
    Drain,
    /// They take nothing.
    Disable,
}

/// One balancer, as we drive it.
#[derive(Debug)]
pub struct Machine {
    door: Door,
    phase: Phase,
    /// What changes must bring along, as last read.
    nonce: Option<String>,
    /// It has been read.
    met: bool,
    /// The nonce became another: when that was last, and how often it was before, with little time between.
    renewed: Option<(Mono, u32)>,
    notes: Sorted<String, Note>,
    /// An addition that was answered 400: the member is there already, or there is no room, or Apache will not have it.
    doubted: Option<String>,
    /// The member that was changed last: it is brought to its end first.
    last: Option<String>,
    looked: Mono,
    trouble: Trouble,
    warned: Option<(String, Mono)>,
    news: Vec<News>,
    views_moved: bool,
}

#[derive(Debug)]
enum Phase {
    Idle {
        look_at: Mono,
    },
    Reading,
    /// The page for people is to be asked for what this state does not say.
    Search(Balancer),
    Searching(Balancer),
    Looked(Balancer),
    Changing(Change<String>),
}

impl Machine {
    /// A machine that has seen nothing yet; its first [`Decides::next`] reads.
    #[must_use]
    pub fn new(door: Door) -> Machine {
        Machine {
            door,
            phase: Phase::Idle { look_at: Mono::ZERO },
            nonce: None,
            met: false,
            renewed: None,
            notes: Sorted::default(),
            doubted: None,
            last: None,
            looked: Mono::ZERO,
            trouble: Trouble::default(),
            warned: None,
            news: Vec::new(),
            views_moved: false,
        }
    }

    fn ask(&self, query: &str, body: Option<String>) -> Todo {
        let mut headers = vec![("Referer", self.door.referer.clone())];
        if body.is_some() {
            headers.push(("Content-Type", "application/x-www-form-urlencoded".to_owned()));
        }
        let method = if body.is_some() { "POST" } else { "GET" };
        Todo::Ask(Ask { method, target: format!("{}{query}", self.door.target), headers, body })
    }

    /// A page with the balancer's state has come.
    fn looked(&mut self, seen: Balancer, now: Mono) {
        self.looked = now;
        if !std::mem::replace(&mut self.met, true) {
            let (name, count) = (&self.door.balancer, seen.workers.len());
            let text = format!("following balancer {name} of Apache, {count} member(s) there");
            self.tell(text);
        }
        let pause = seen.nonce.clone().and_then(|nonce| self.renew(nonce, now));
        self.go_on(seen, pause);
    }

    /// Compares, at once or after a pause.
    fn go_on(&mut self, seen: Balancer, pause: Option<Duration>) {
        self.phase = match pause {
            Some(pause) => Phase::Idle { look_at: self.looked.after(pause) },
            None => Phase::Looked(seen),
        };
    }

    /// The nonce as it is now: with another than before, Apache was restarted, and nothing tried counts. Where that comes
    /// again and again there is more than one Apache behind the url: it needs a pause, or it would go on without end.
    fn renew(&mut self, nonce: String, now: Mono) -> Option<Duration> {
        let mut pause = None;
        if self.nonce.replace(nonce.clone()).is_some_and(|before| before != nonce) {
            self.notes.iter_mut().for_each(|(_, note)| {
                note.absent();
                note.tried = Tried::default();
            });
            self.warned = None;
            self.tell("Apache was restarted: comparing anew".to_owned());
            let before = self.renewed.filter(|(last, _)| now < last.after(SOON));
            let repeats = before.map_or(0, |(_, repeats)| repeats.saturating_add(1));
            self.renewed = Some((now, repeats));
            pause = repeats.checked_sub(1).map(|repeats| back_off(repeats, 0));
        }
        pause
    }

    /// A change was answered with the state it has led to.
    fn judged(&mut self, change: &Change<String>, seen: Balancer, now: Mono) {
        let done = decide::rows(&seen)
            .get(&change.key)
            .is_some_and(|worker| decide::took_effect(change.step, worker));
        self.looked(seen, now);
        // Without effect, perhaps for an old nonce. This version does not say which is the new one: it is searched
        // for, and if it is another the change is tried again.
        self.phase = match std::mem::replace(&mut self.phase, Phase::Reading) {
            Phase::Looked(seen) if !done && seen.nonce.is_none() => Phase::Search(seen),
            phase => phase,
        };
    }

    /// The page for people has come.
    fn searched(&mut self, found: Links, seen: Balancer, now: Mono) {
        if let Some(key) = self.doubted.take() {
            let text = match found.slots {
                Some((most, used)) if used >= most => {
                    format!("no room, all {most} members of {} are taken: see growth", self.door.balancer)
                }
                _ => "Apache will not have it".to_owned(),
            };
            self.notes.or_default(key).tried.say(text);
        }
        let pause = if seen.nonce.is_none() { self.renew(found.nonce, now) } else { None };
        self.looked = now;
        self.go_on(seen, pause);
    }

    fn heard(&mut self, answer: &Response, phase: Phase, now: Mono) -> Result<(), String> {
        match (phase, answer.status) {
            (Phase::Reading, 200) => {
                let seen = read(&answer.body, &self.door.balancer).map_err(|why| self.unread(why))?;
                self.looked(seen, now);
            }
            (Phase::Searching(seen), 200) => {
                let found = match links(&answer.body, &self.door.balancer) {
                    Err(why) if seen.nonce.is_none() => return Err(self.unread(why)),
                    found => found.unwrap_or_default(),
                };
                self.searched(found, seen, now);
            }
            (Phase::Changing(change), 200) => {
                let seen = read(&answer.body, &self.door.balancer).map_err(|why| self.unread(why))?;
                self.judged(&change, seen, now);
            }
            (Phase::Changing(change), 400) => {
                self.notes.or_default(change.key.clone()).tried.say("status 400".to_owned());
                self.doubted = matches!(change.step, Step::Add(_)).then_some(change.key);
                self.phase = Phase::Idle { look_at: now };
            }
            (_, status) => return Err(status_text(status)),
        }
        Ok(())
    }

    fn unread(&self, why: Unread) -> String {
        match why {
            Unread::NoBalancer => format!("{why}: {}", self.door.balancer),
            _ => why.to_string(),
        }
    }

    fn recovered(&mut self) {
        if self.trouble.over() {
            self.views_moved = true;
            self.tell("Apache is back".to_owned());
        }
    }

    fn tell(&mut self, text: String) {
        self.news.push(News { warn: false, text });
    }
}

impl Decides for Machine {
    fn place(&self, url: &Url) -> Result<String, Refused> {
        let known = SCHEMES.contains(&url.scheme());
        if known { Ok(member(url)) } else { Err(Refused::Scheme(url.scheme().to_owned())) }
    }

    fn next(&mut self, want: &Want<String>, now: Mono) -> Todo {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Reading) {
                Phase::Idle { look_at } if now < look_at => {
                    self.phase = Phase::Idle { look_at };
                    return Todo::Wait(look_at);
                }
                Phase::Idle { .. } => return self.ask("?xml=1", None),
                Phase::Looked(seen) => {
                    if let Some(todo) = self.decide(seen, want, now) {
                        return todo;
                    }
                }
                Phase::Search(seen) => {
                    self.phase = Phase::Searching(seen);
                    return self.ask("", None);
                }
                waiting @ (Phase::Reading | Phase::Searching(_) | Phase::Changing(_)) => {
                    self.phase = waiting;
                    return Todo::Wait(Mono::NEVER);
                }
            }
        }
    }

    fn answered(&mut self, answer: &Response, now: Mono, random: u64) {
        match std::mem::replace(&mut self.phase, Phase::Reading) {
            unasked @ (Phase::Idle { .. } | Phase::Search(_) | Phase::Looked(_)) => self.phase = unasked,
            phase => {
                let changed = match &phase {
                    Phase::Changing(change) => Some(change.key.clone()),
                    _ => None,
                };
                if let Err(why) = self.heard(answer, phase, now) {
                    if let Some(key) = changed {
                        self.notes.or_default(key).tried.lost(true, now);
                    }
                    self.failed(&why, now, random);
                }
            }
        }
    }

    fn failed(&mut self, why: &str, now: Mono, random: u64) {
        self.lost(true, now);
        let (pause, news) = self.trouble.failed(why, random);
        self.news.extend(news);
        self.views_moved = true;
        self.phase = Phase::Idle { look_at: now.after(pause) };
    }

    fn members_changed(&mut self, now: Mono) {
        if let (Phase::Idle { look_at }, None) = (&mut self.phase, self.trouble.text()) {
            *look_at = now;
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
        let state = note.and_then(|note| note.shown).map_or(ViewState::Down, |(state, _)| state);
        (state, self.trouble.text().or(note.and_then(|note| note.error.as_deref())))
    }

    fn views_moved(&mut self) -> bool {
        std::mem::take(&mut self.views_moved)
    }

    fn inherit(&mut self, mut old: Machine) {
        old.lost(false, Mono::ZERO);
        if old.door.balancer == self.door.balancer {
            (self.nonce, self.met, self.notes) = (old.nonce, old.met, old.notes);
        }
    }
}

impl Machine {
    /// The change under way may not have reached Apache.
    fn lost(&mut self, sent: bool, now: Mono) {
        if let Phase::Changing(change) = &self.phase {
            self.notes.or_default(change.key.clone()).tried.lost(sent, now);
        }
    }
}

/// A server that closes every kept connection is not asked more often than this for it.
const PULSE: Duration = Duration::from_secs(1);
/// Restarts this close together are more than an operator's.
const SOON: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::page::render;
    use super::*;
    use crate::sinks::diff::Goal;

    #[test]
    fn a_nonce_that_is_always_another_is_not_followed_without_end() {
        let door = Door {
            target: "/m".to_owned(),
            referer: "http://a/m".to_owned(),
            balancer: "web".to_owned(),
            evict: Evict::Disable,
            every: Duration::from_secs(5),
        };
        let want = Want { settled: true, ..Want::of(vec![("http://10.0.0.5".to_owned(), Goal::Up(1))]) };
        let (mut machine, mut now, mut asked) = (Machine::new(door), Mono::ZERO, 0_u32);
        while now < Mono::ZERO.after(Duration::from_secs(60)) {
            match machine.next(&want, now) {
                Todo::Wait(at) => now = at,
                Todo::Ask(_) => {
                    asked += 1;
                    assert!(asked < 100, "without end");
                    let state = Balancer { nonce: Some(asked.to_string()), workers: Vec::new() };
                    let body = render("web", &state).into_bytes();
                    let answer = Response { status: 200, body, ..Response::default() };
                    machine.answered(&answer, now, 0);
                }
            }
        }
        assert!(machine.news().len() < 50);
    }
}
