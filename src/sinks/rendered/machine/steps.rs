//! What came of each step, and which one follows.

use super::{Asked, Came, Machine, News, Part, Phase, Seen, Todo};
use crate::clock::Mono;
use crate::sinks::rendered::layout::{Layout, Servers};
use std::time::Duration;

impl Machine {
    /// What came of what was under way. `random` spreads out the retries of several machines.
    pub fn came(&mut self, came: Came, now: Mono, random: u64) {
        let Phase::Asked(asked) = std::mem::replace(&mut self.phase, Phase::Idle) else { return };
        match (asked, came) {
            (Asked::Test, Came::Failed(why)) => self.test_failed(&why, now, random),
            (Asked::Reload, Came::Failed(why)) if !self.ways.test => {
                self.fail(&format!("the command failed: {why}"), now, random);
            }
            (asked, Came::Failed(why)) => self.fail(&format!("{}: {why}", what(&asked)), now, random),
            (Asked::ReadGood, Came::Bytes(bytes)) => self.good = Some(bytes),
            (Asked::ReadGood, _) => self.good = Some(None),
            (Asked::Read { written }, Came::Bytes(bytes)) => self.found(bytes, written, now, random),
            (Asked::Read { .. }, Came::Same | Came::Done) if self.seen.is_none() => {
                self.fail("the file is said to be as before, and was not read", now, random);
            }
            (Asked::Read { written }, Came::Same | Came::Done) => self.phase = Phase::Looked { written },
            (Asked::Write { new, back }, _) => self.wrote(new, back),
            (Asked::WriteGood(bytes), _) => {
                self.good = Some(Some(bytes));
                self.before = None;
                self.phase = Phase::Looked { written: false };
            }
            (Asked::WriteGeneration { back }, _) => {
                self.generation = Some(self.current_generation());
                self.phase = if back { Phase::Idle } else { Phase::Looked { written: true } };
            }
            (Asked::Test, _) if self.ways.reload => self.phase = Phase::Next(Todo::Reload),
            (Asked::Reload, _) if self.ways.verify => {
                self.phase = Phase::Next(Todo::Verify(self.current_generation()));
            }
            (Asked::Test | Asked::Reload | Asked::Verify, _) => self.passed(),
        }
    }

    /// Begins `todo`.
    pub(super) fn ask(&mut self, todo: Todo, now: Mono) -> Todo {
        let asked = match &todo {
            Todo::Read(Part::Good) => Asked::ReadGood,
            Todo::Read(_) => Asked::Read { written: std::mem::take(&mut self.unread) },
            Todo::Write(Part::File, new) => Asked::Write { new: new.clone(), back: false },
            Todo::Write(Part::Good, bytes) => Asked::WriteGood(bytes.clone()),
            Todo::Write(Part::Generation, _) => {
                Asked::WriteGeneration { back: std::mem::take(&mut self.put_back) }
            }
            Todo::Test => Asked::Test,
            Todo::Reload => Asked::Reload,
            Todo::Verify(_) => Asked::Verify,
            Todo::Wait(_) => return todo,
        };
        if asked == Asked::Reload {
            self.gap_until = now.after(self.pace.min_gap);
        }
        self.phase = Phase::Asked(asked);
        todo
    }

    /// The first step that follows a write.
    pub(super) fn first_step(&self) -> Option<Todo> {
        match () {
            () if self.ways.test => Some(Todo::Test),
            () if self.ways.reload => Some(Todo::Reload),
            () => None,
        }
    }

    /// The file is not what it was at the last look: the first look finds it so, or somebody else has been at it.
    fn found(&mut self, bytes: Option<Vec<u8>>, written: bool, now: Mono, random: u64) {
        let first = self.seen.is_none();
        let before = self.seen.take().unwrap_or_else(Seen::nothing);
        self.phase = Phase::Looked { written };
        if !first && before.bytes == bytes {
            self.seen = Some(before);
            return;
        }
        let read = bytes.as_ref().map(|bytes| self.layout.read(bytes));
        let (servers, ours) = match read {
            Some(Some(servers)) => (servers, true),
            Some(None) => (before.servers, before.ours && !first),
            // It was lost while we were away: what it had is in the copy, and may be in force still.
            None if first => (self.copied(), true),
            None => (before.servers, true),
        };
        self.stale = true;
        self.views_moved = true;
        if first {
            self.owed = bytes.is_some() && self.ways.reload && self.good.as_ref() != Some(&bytes);
            match self.owed {
                // Not known to be good, but better than an empty one.
                true => self.before.clone_from(&bytes),
                false => self.taken = servers.clone(),
            }
        } else {
            self.owed = self.first_step().is_some();
            if before.ours && now >= self.warned_until {
                self.warned_until = now.after(SAME_WARNING);
                let text = "somebody else has changed the file; it is written anew".to_owned();
                self.news.push(News { warn: true, text });
            }
        }
        self.seen = Some(Seen { bytes, servers, ours });
        if written {
            self.fail("the file is not what was just written to it", now, random);
        }
    }

    /// The file was replaced, for good or back.
    fn wrote(&mut self, new: Vec<u8>, back: bool) {
        let before = self.seen.take().unwrap_or_else(Seen::nothing);
        if !self.owed && !back {
            self.before = before.bytes;
        }
        let servers = self.layout.read(&new).unwrap_or(before.servers);
        self.seen = Some(Seen { bytes: Some(new), servers, ours: true });
        self.stale = true;
        self.views_moved = true;
        // Put back, too: who failed the test may have been loaded meanwhile, by a restart or somebody's reload.
        self.owed = self.first_step().is_some();
        // The time of the next attempt stands after that.
        if back && self.ways.generation {
            self.put_back = true;
            let generation = Layout::generation_file(&self.current_generation());
            self.phase = Phase::Next(Todo::Write(Part::Generation, generation));
        } else if !back {
            self.unread = true;
            self.phase = Phase::Next(Todo::Read(Part::File));
        }
    }

    /// All steps are behind it.
    fn passed(&mut self) {
        self.owed = false;
        self.phase = Phase::Looked { written: true };
    }

    /// The old file comes back: with this one the next reload by anybody, or the next start, would fail.
    fn test_failed(&mut self, why: &str, now: Mono, random: u64) {
        let old = self.good.clone().flatten().or_else(|| self.before.clone());
        let old = old.unwrap_or_else(|| self.layout.render(&Servers::default()));
        if self.seen.as_ref().is_some_and(|seen| seen.bytes.as_ref() == Some(&old)) {
            self.fail(&format!("{}: {why}", what(&Asked::Test)), now, random);
        } else {
            self.fail(&format!("{}, the old file is put back: {why}", what(&Asked::Test)), now, random);
            self.phase = Phase::Restore(old);
        }
    }

    /// The servers of the copy.
    fn copied(&self) -> Servers {
        let copy = self.good.as_ref().and_then(Option::as_ref);
        copy.and_then(|bytes| self.layout.read(bytes)).unwrap_or_default()
    }

    fn current_generation(&self) -> String {
        let bytes = self.seen.as_ref().and_then(|seen| seen.bytes.as_deref());
        Layout::generation(bytes.unwrap_or_default())
    }
}

impl Seen {
    fn nothing() -> Seen {
        Seen { bytes: None, servers: Servers::default(), ours: true }
    }
}

/// What failed, in words.
fn what(asked: &Asked) -> &'static str {
    match asked {
        Asked::Read { .. } => "cannot read the file",
        Asked::ReadGood => "cannot read the copy of the file",
        Asked::Write { .. } => "cannot write the file",
        Asked::WriteGood(_) => "cannot write the copy of the file",
        Asked::WriteGeneration { .. } => "cannot write the generation file",
        Asked::Test => "the test failed",
        Asked::Reload => "the reload failed",
        Asked::Verify => "the reload did not take",
    }
}

const SAME_WARNING: Duration = Duration::from_secs(60);
