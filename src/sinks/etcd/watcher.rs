//! The decisions of a watch: what to ask of etcd, who is a member there, and whose absence means anything.
//!
//! It polls, and asks each time only for what has changed: an answer of a few hundred bytes while all is quiet. A watch of
//! etcd's own would tell a second or two sooner, on a connection held for ever that does not say when it is dead.
//!
//! While etcd is away nobody is taken out. Nor within the grace time after it returned, or when another store answers
//! than before: leases run out while etcd stands still, and receivers need a moment to write their members again.
//! Pure.

use super::layout::{Card, Layout, Site, read_card, read_url};
use super::machine::Todo;
use super::mirror::{Look, Mirror};
use super::wire;
use crate::beacon::admission::Admission;
use crate::clock::Mono;
use crate::sinks::back_off;
use crate::sinks::trouble::News;
use crate::sorted::Sorted;
use crate::url::Url;
use std::time::Duration;

/// A watch of one balancer.
#[derive(Debug)]
pub struct Watcher {
    range: String,
    admission: Admission,
    every: Duration,
    grace: Duration,
    mirror: Mirror,
    /// Who is there, as of the last answer.
    there: Sorted<Url, Card>,
    /// Whom we brought in and have not taken out.
    brought: Sorted<Url, ()>,
    /// From when on an absence means something.
    believe_at: Mono,
    asking: bool,
    ask_at: Mono,
    /// How often in a row etcd has not answered.
    failures: u32,
    why: Option<String>,
    /// How many keys there are that no member comes of.
    odd: usize,
    news: Vec<News>,
}

/// What an answer says about a url.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Saying {
    /// It is there.
    Here(Url, Card),
    /// It was there, and is not any more.
    Gone(Url),
}

impl Saying {
    /// Whom it is about.
    #[must_use]
    pub fn url(&self) -> &Url {
        match self {
            Saying::Here(url, _) | Saying::Gone(url) => url,
        }
    }
}

impl Watcher {
    /// A watch of `site`'s plain layout that asks at once. Of those that are `brought` already, nobody is taken out
    /// within `grace`.
    #[must_use]
    pub fn new(
        site: &Site,
        admission: Admission,
        every: Duration,
        grace: Duration,
        brought: impl Iterator<Item = Url>,
        now: Mono,
    ) -> Watcher {
        let range = site.range(Layout::Plain);
        Watcher {
            mirror: Mirror::new(vec![range.clone()]),
            range,
            admission,
            every,
            grace,
            there: Sorted::default(),
            brought: brought.map(|url| (url, ())).collect(),
            believe_at: now.after(grace),
            asking: false,
            ask_at: Mono::ZERO,
            failures: 0,
            why: None,
            odd: 0,
            news: Vec::new(),
        }
    }

    /// What to do now.
    pub fn next(&mut self, now: Mono) -> Todo {
        match () {
            () if self.asking => Todo::Wait(Mono::NEVER),
            () if now < self.ask_at => Todo::Wait(self.ask_at),
            () => {
                self.asking = true;
                Todo::Send(self.mirror.ask())
            }
        }
    }

    /// An answer: what it says of everybody, in no particular order; or nothing, if it must be asked once more or is
    /// none.
    pub fn answered(&mut self, status: u16, body: &[u8], now: Mono, random: u64) -> Option<Vec<Saying>> {
        self.asking = false;
        let look = wire::reply(status, body).and_then(|reply| self.mirror.take(&reply));
        match look {
            Ok(Look::Same) => {}
            Ok(Look::Changed) => self.read(),
            Ok(Look::Again) => {
                self.ask_at = now;
                return None;
            }
            Ok(Look::Other) => {
                self.tell(
                    true,
                    "another store answers: its members are believed, absences not yet".to_owned(),
                );
                self.believe_at = now.after(self.grace);
                self.ask_at = now;
                return None;
            }
            Err(fault) => {
                self.failed(&fault.text, now, random);
                return None;
            }
        }
        if std::mem::take(&mut self.failures) > 0 {
            self.why = None;
            self.believe_at = now.after(self.grace);
            self.tell(false, "etcd is back".to_owned());
        }
        self.ask_at = now.after(self.every);
        Some(self.say(now))
    }

    /// No answer: etcd is away or slow. Everybody stays.
    pub fn failed(&mut self, why: &str, now: Mono, random: u64) {
        self.asking = false;
        // It may come back restored from a copy, and be past the revision that we know by the time we ask.
        self.mirror.forget();
        if self.why.as_deref() != Some(why) {
            let stay = self.brought.len();
            self.tell(true, format!("{why}; {stay} member(s) stay as they were"));
            self.why = Some(why.to_owned());
        }
        // One look comes after another in any case, so that the set is not much staler than etcd is.
        self.ask_at = now.after(back_off(self.failures, random).min(self.every.max(SHORTEST)));
        self.failures = self.failures.saturating_add(1);
    }

    /// There was no room for these, who were said to be there: they need not be taken out.
    pub fn not_brought(&mut self, urls: &Sorted<Url, ()>) {
        self.brought.retain(|url| !urls.contains_key(url));
    }

    /// Whether the last call had no answer.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.failures > 0
    }

    /// What has happened since the last call, for the log.
    pub fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Everybody who is there now, and whoever is not any more.
    fn say(&mut self, now: Mono) -> Vec<Saying> {
        let here = self.there.iter().map(|(url, card)| Saying::Here(url.clone(), card.clone()));
        let mut sayings: Vec<Saying> = here.collect();
        if now >= self.believe_at {
            let gone = self.brought.iter().filter(|(url, ())| !self.there.contains_key(url));
            sayings.extend(gone.map(|(url, ())| Saying::Gone(url.clone())));
            self.brought.retain(|url| self.there.contains_key(url));
        }
        self.brought.extend(self.there.iter().map(|(url, _)| (url.clone(), ())));
        sayings
    }

    /// Makes members of the rows.
    fn read(&mut self) {
        let mut there = Vec::new();
        let mut odd = (0, None);
        for (key, row) in self.mirror.rows() {
            let member = read_url(key, &self.range)
                .and_then(|url| read_card(&url, &row.value).map(|card| (url, card)))
                .ok_or_else(|| "is none of beacond's".to_owned())
                .and_then(|(url, card)| match self.admission.check(&url) {
                    Ok(()) => Ok((url, card)),
                    Err(why) => Err(why.to_string()),
                });
            match member {
                Ok(member) => there.push(member),
                Err(why) => odd = (odd.0 + 1, odd.1.or(Some((key.clone(), why)))),
            }
        }
        self.there = there.into_iter().collect();
        if let (count, Some((key, why))) = odd
            && count != self.odd
        {
            let key = crate::bytes::Printable(key.as_bytes()).to_string();
            self.tell(true, format!("{count} key(s) are left out (first: {key} {why})"));
        }
        self.odd = odd.0;
    }

    fn tell(&mut self, warn: bool, text: String) {
        self.news.push(News { warn, text });
    }
}

/// Between two tries while etcd is away, at least.
const SHORTEST: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::super::base64::encode;
    use super::super::wire::Call;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watcher() -> Watcher {
        let site = Site {
            prefix: "/b".to_owned(),
            cluster: "c".to_owned(),
            balancer: "web".to_owned(),
            layouts: vec![Layout::Plain],
            service: String::new(),
            zone: String::new(),
        };
        let nobody = std::iter::empty();
        Watcher::new(&site, Admission::default(), SECOND, Duration::ZERO, nobody, Mono::ZERO)
    }

    fn sent(todo: Todo) -> Call {
        match todo {
            Todo::Send(call) => call,
            Todo::Wait(at) => panic!("waits until {at:?}"),
        }
    }

    fn answer(revision: u32, ports: &[u16]) -> Vec<u8> {
        let row = |port: &u16| {
            let url = format!("http://10.0.0.5:{port}");
            let value = format!("{{\"url\":\"{url}\",\"weight\":1}}");
            let (key, value) = (encode(format!("/b/c/web/{url}").as_bytes()), encode(value.as_bytes()));
            serde_json::json!({ "key": key, "value": value })
        };
        let rows: Vec<_> = ports.iter().map(row).collect();
        let range = serde_json::json!({ "kvs": rows, "count": rows.len().to_string() });
        let header = serde_json::json!({ "revision": revision.to_string() });
        serde_json::json!({ "header": header, "responses": [{ "response_range": range }] }).to_string().into()
    }

    #[test]
    fn after_a_failure_everything_is_read() {
        let (mut watcher, at) = (watcher(), |s: u64| Mono(s * 1_000_000));
        let first = sent(watcher.next(at(1)));
        assert!(watcher.answered(200, &answer(5, &[1, 2]), at(1), 0).is_some());
        assert_ne!(sent(watcher.next(at(3))), first, "what has changed since");
        watcher.failed("it is away", at(3), 0);
        // Restored from a copy meanwhile, it may be past that revision with older keys.
        assert_eq!(sent(watcher.next(at(9))), first);
    }

    #[test]
    fn whoever_there_was_no_room_for_is_not_taken_out() {
        let (mut watcher, at) = (watcher(), |s: u64| Mono(s * 1_000_000));
        sent(watcher.next(at(1)));
        let sayings = watcher.answered(200, &answer(5, &[1, 2]), at(1), 0).unwrap();
        watcher.not_brought(&sayings.iter().take(1).map(|s| (s.url().clone(), ())).collect());
        watcher.failed("it is away", at(2), 0);
        sent(watcher.next(at(9)));
        let gone = watcher.answered(200, &answer(6, &[]), at(9), 0).unwrap();
        assert_eq!(gone, [Saying::Gone(sayings[1].url().clone())]);
    }
}
