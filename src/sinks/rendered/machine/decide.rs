//! What a look at the file comes to.

use super::{Machine, Part, Todo};
use crate::clock::Mono;
use crate::sinks::Want;
use crate::sinks::diff::{Change, Have, Level, Step, diff};
use crate::sinks::rendered::layout::{Layout, Servers, Shown};
use crate::sorted::Sorted;
use crate::url::Url;

impl Machine {
    /// The file was read: what to do about it. `None`: it rests now.
    pub(super) fn decide(&mut self, want: &Want<Url>, written: bool, now: Mono) -> Option<Todo> {
        self.settle();
        let seen = self.seen.as_ref()?;
        if !seen.ours {
            self.complain(NOT_OURS.to_owned());
            self.look_at = now.after(self.pace.every);
            return None;
        }
        // What was just written goes through its steps, and into the copy, before anything newer is written: where
        // there is always something newer the copy would grow old.
        let copied = !self.ways.reload || self.good.as_ref() == Some(&seen.bytes);
        if !(written && (self.owed || !copied)) {
            self.change_at = None;
            let changes = diff(&want.servers, &have(&seen.servers, want), want.settled);
            if self.stale || !changes.is_empty() {
                let keeps = self.layout.keeps_draining();
                let drains = |url: &Url| keeps && want.servers.contains_key(url);
                let servers = apply(changes, &seen.servers, drains);
                let bytes = self.layout.render(&servers);
                if seen.bytes.as_ref() != Some(&bytes) {
                    return self.unless_too_soon(Todo::Write(Part::File, bytes), now);
                }
                self.stale = false;
                self.believe(servers);
            }
        }
        self.finish(now)
    }

    /// The file says what it should: does what else belongs to it.
    fn finish(&mut self, now: Mono) -> Option<Todo> {
        let bytes = self.seen.as_ref()?.bytes.clone()?;
        let generation = Layout::generation(&bytes);
        if self.ways.generation && self.generation.as_ref() != Some(&generation) {
            return Some(Todo::Write(Part::Generation, Layout::generation_file(&generation)));
        }
        match self.first_step() {
            Some(step) if self.owed => return self.unless_too_soon(step, now),
            Some(_) => {}
            None => self.owed = false,
        }
        self.settle();
        if self.ways.reload && self.good.as_ref() != Some(&Some(bytes.clone())) {
            return Some(Todo::Write(Part::Good, bytes));
        }
        if self.trouble.take().is_some() {
            self.views_moved = true;
            self.tell("all is well again".to_owned());
        }
        self.look_at = now.after(self.pace.every);
        None
    }

    /// What has all steps behind it is in force.
    fn settle(&mut self) {
        if let Some(seen) = &self.seen
            && !self.owed
            && self.taken != seen.servers
        {
            self.taken = seen.servers.clone();
            self.views_moved = true;
        }
    }

    /// `todo`, or none until the gap is over.
    fn unless_too_soon(&mut self, todo: Todo, now: Mono) -> Option<Todo> {
        if now < self.gap_until {
            self.look_at = self.gap_until;
            return None;
        }
        if !(self.ways.reload && matches!(todo, Todo::Write(..))) {
            self.gap_until = now.after(self.pace.min_gap);
        }
        Some(todo)
    }

    /// The file has these servers.
    fn believe(&mut self, servers: Servers) {
        self.views_moved = true;
        if let Some(seen) = &mut self.seen {
            seen.servers = servers;
        }
    }
}

/// The servers of the file as `diff` sees them: all of them are ours, and those that drain are done when nobody knows
/// them any more.
fn have(servers: &Servers, want: &Want<Url>) -> Sorted<Url, Have> {
    let row = |(url, shown): (&Url, &Shown)| {
        let (level, weight) = match *shown {
            Shown::Up(weight) => (Level::Up, weight),
            Shown::Draining => (Level::Draining, 0),
        };
        let drained = !want.servers.contains_key(url);
        (url.clone(), Have { level, weight, owned: true, drained, removable: true })
    };
    servers.iter().map(row).collect()
}

/// The servers after `changes`; `drains` says of which one may be told that it drains.
fn apply(changes: Vec<Change<Url>>, servers: &Servers, drains: impl Fn(&Url) -> bool) -> Servers {
    let becomes = |Change { step, key }: Change<Url>| {
        let shown = match step {
            Step::Add(weight) | Step::Enable(weight) | Step::Weight(weight) => Some(Shown::Up(weight)),
            Step::Drain => drains(&key).then_some(Shown::Draining),
            Step::Disable | Step::Remove => None,
        };
        (key, shown)
    };
    let changed: Sorted<Url, Option<Shown>> = changes.into_iter().map(becomes).collect();
    let kept = servers.iter().filter(|(url, _)| !changed.contains_key(*url));
    let kept = kept.map(|(url, &shown)| (url.clone(), shown));
    kept.chain(changed.iter().filter_map(|(url, shown)| Some((url.clone(), (*shown)?)))).collect()
}

const NOT_OURS: &str =
    "the file has something in it that beacond did not write: move it away to have it written";
