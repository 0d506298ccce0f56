//! From what is wanted and what is there to the steps between.

use super::{Facts, Machine, Note, Step};
use crate::clock::Mono;
use crate::sinks::Want;
use crate::sinks::diff::{self, Goal, Have, Level, diff};
use crate::sorted::Sorted;
use crate::url::Url;
use std::time::Duration;

impl Machine {
    /// Takes over what the table has: what it wants, what it knows of each member, and its largest skew.
    pub fn inform(&mut self, want: &Want<Url>, facts: Vec<(Url, Facts)>, max_skew: Duration, now: Mono) {
        self.max_skew = max_skew.max(Duration::from_secs(1));
        let facts: Sorted<Url, Facts> = facts.into_iter().collect();
        self.notes.retain(|url| facts.contains_key(url));
        for (url, facts) in facts.iter() {
            let fresh = !self.notes.contains_key(url);
            let note = self.notes.or_default(url.clone());
            if fresh || note.facts.card != facts.card {
                note.entries = self.site.entries(url, &facts.card);
            }
            note.facts = facts.clone();
            note.goal = want.servers.get(url).copied();
            if note.refused.is_some() && note.facts.mark > note.refused {
                note.refused = None;
                self.look_at = now;
            }
        }
        if self.want != *want {
            // What was decided last was about another table.
            self.look_at = now;
            self.want = want.clone();
        }
    }

    /// After a look: what is to be done about what it showed.
    pub(super) fn decide(&mut self, now: Mono) {
        let mut have = Vec::new();
        let mut news = Vec::new();
        for (url, note) in self.notes.iter_mut() {
            let lease = self.site.lease(url);
            let rows = || note.entries.iter().map(|(key, value)| (self.mirror.get(key), value));
            note.present = rows().any(|(row, _)| row.is_some());
            let right = rows().all(|(row, value)| match (row, value) {
                (Some(row), Some(value)) => row.value == value.as_bytes() && row.lease == lease,
                (None, None) => true,
                _ => false,
            });
            note.observe(right && !note.expired, now);
            if note.tries == STUBBORN && note.error.is_none() {
                note.error = Some("balancer add failed: not there after it was written".to_owned());
                news.push(format!("{url}: balancer add failed: not there after it was written"));
            }
            have.extend(note.have().map(|have| (url.clone(), have)));
        }
        news.into_iter().for_each(|text| self.tell(true, text));
        self.todo = diff(&self.want.servers, &have.into_iter().collect(), false)
            .into_iter()
            .filter(|change| self.notes.get(&change.key).is_some_and(|note| note.may(change.step, now)))
            .filter_map(|change| step(change.step, change.key))
            .collect();
        self.look_at = now.after(self.pace.every);
        self.looked = true;
        self.views_moved = true;
        self.greet();
        if self.todo.is_empty() || self.trouble.as_ref().is_some_and(|trouble| !trouble.writing) {
            self.recovered();
        }
    }

    fn greet(&mut self) {
        if !std::mem::replace(&mut self.greeted, true) {
            let there = self.mirror.rows().count();
            let place = self.site.ranges().collect::<Vec<_>>().join(" and ");
            self.tell(false, format!("writing members under {place}, {there} key(s) there"));
        }
    }
}

impl Note {
    /// What a look says about it.
    fn observe(&mut self, right: bool, now: Mono) {
        self.right = right;
        let written = std::mem::take(&mut self.written);
        if right {
            (self.tries, self.error) = (0, None);
            if self.is_up() && self.ttl.is_none() {
                self.assume_lease();
            }
        } else if written {
            self.tries += 1;
            if self.tries >= STUBBORN {
                self.retry_at = now.after(ADD_BACK_OFF);
            }
        }
    }

    /// Itself as something to compare. Whoever is down here is nobody's business here: others may hear it.
    fn have(&self) -> Option<Have> {
        let have =
            |level, weight| Some(Have { level, weight, owned: false, drained: false, removable: false });
        match self.goal? {
            Goal::Up(weight) if self.right => have(Level::Up, weight),
            Goal::Up(_) if self.present => have(Level::Down, 0),
            Goal::Drain if self.present && self.farewell != self.facts.mark => have(Level::Up, 0),
            Goal::Up(_) | Goal::Drain | Goal::Out => None,
        }
    }

    fn may(&self, step: diff::Step, now: Mono) -> bool {
        match step {
            diff::Step::Add(_) | diff::Step::Enable(_) => self.refused.is_none() && now >= self.retry_at,
            _ => true,
        }
    }
}

fn step(step: diff::Step, url: Url) -> Option<Step> {
    match step {
        diff::Step::Add(_) | diff::Step::Enable(_) | diff::Step::Weight(_) => Some(Step::Put(url)),
        diff::Step::Drain => Some(Step::Farewell(url)),
        diff::Step::Disable | diff::Step::Remove => None,
    }
}

/// How long a member is left alone that was not there, twice in a row, after it was written.
const ADD_BACK_OFF: Duration = Duration::from_secs(60);
const STUBBORN: u32 = 2;
