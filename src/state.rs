//! The state file as a service: read at the start, written within a second of a change of members, now and then for
//! the replay marks alone, and at the end.
//!
//! Its text is in `state_text`; what is taken over, in [`crate::members`]. A file that cannot be read is put aside,
//! never overwritten. A lock on a file beside it keeps a second process out.

use crate::beacon::admission::Admission;
use crate::clock::Now;
use crate::members::Changes;
use crate::reactor::bank::plain;
use crate::reactor::offload::{Care, replace_file};
use crate::reactor::{Cx, Done, Job, Key, Service};
use crate::shared::Shared;
use crate::state_text;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long changes of members are gathered before they are written.
const GATHER: Duration = Duration::from_millis(500);
/// When to try again after a write failed.
const RETRY: Duration = Duration::from_secs(10);

const MEMBERS: Key = Key(0);
const MARKS: Key = Key(1);
const WRITTEN: Key = Key(2);

/// The state file.
pub struct State {
    path: PathBuf,
    admissions: Vec<(String, Admission)>,
    /// How often replay marks are written: half of the largest skew, so that a restart opens no window.
    marks_every: Duration,
    lock: Option<File>,
    written: Changes,
    /// What is on its way to the disk.
    writing: Option<Changes>,
    gathering: bool,
    marks_armed: bool,
    failing: bool,
}

impl State {
    /// The state in `path`. `admissions` are the url rules by balancer; `max_skew` is the largest of all receivers.
    #[must_use]
    pub fn new(path: PathBuf, admissions: Vec<(String, Admission)>, max_skew: Duration) -> State {
        State {
            path,
            admissions,
            marks_every: max_skew / 2,
            lock: None,
            written: Changes::default(),
            writing: None,
            gathering: false,
            marks_armed: false,
            failing: false,
        }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }

    fn take_lock(&mut self) -> io::Result<()> {
        let path = self.beside(".lock");
        // Whoever may open it may lock it, and so keep us from starting.
        let file = File::options().create(true).append(true).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => {
                let why = format!("{} is locked: another beacond uses this state file", path.display());
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        Ok(())
    }

    /// Takes over what the last run left.
    fn load(&self, now: Now, shared: &mut Shared) -> io::Result<()> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let saved = match state_text::decode(&text) {
            Ok(saved) => saved,
            Err(fault) => {
                let aside = self.beside(&format!(".unreadable-{}", now.unix_us.div_euclid(1_000_000)));
                log::error!(
                    target: "state",
                    "{}: {fault}; kept as {}, starting with an empty table",
                    self.path.display(),
                    aside.display()
                );
                return fs::rename(&self.path, aside);
            }
        };
        let admit = &mut |balancer: &str, url: &[u8]| {
            let mut rules = self.admissions.iter().filter(|(name, _)| name == balancer);
            rules.find_map(|(_, admission)| admission.admit(url).ok()).map(|url| url.text().into())
        };
        let done = shared.members.restore(saved, now, admit);
        let (members, up, path) = (done.members, done.up, self.path.display());
        log::info!(target: "state", "{members} members ({up} up) taken over from {path}");
        if done.refused + done.strangers + done.no_room > 0 {
            log::warn!(
                target: "state",
                "left behind: {} not admitted any more, {} of balancers that are gone, {} without room",
                done.refused,
                done.strangers,
                done.no_room
            );
        }
        Ok(())
    }

    fn write(&mut self, cx: &mut Cx<'_>) {
        let changes = cx.shared.members.changes();
        if self.writing.is_some() || changes == self.written {
            return;
        }
        let job = Job::WriteFile {
            path: self.path.clone(),
            bytes: cx.shared.members.snapshot(cx.now),
            care: Care::STATE,
        };
        match cx.offload(WRITTEN, job) {
            Ok(()) => self.writing = Some(changes),
            Err(_) => self.gather(RETRY, cx),
        }
    }

    fn gather(&mut self, time: Duration, cx: &mut Cx<'_>) {
        if !std::mem::replace(&mut self.gathering, true) {
            cx.arm(MEMBERS, cx.now.mono.after(time));
        }
    }

    /// Marks move as long as somebody is up; with nobody there, no timer wakes the process.
    fn arm_marks(&mut self, cx: &mut Cx<'_>) {
        let members = &cx.shared.members;
        let anybody = members.balancers().any(|(id, _)| members.up(id) > 0);
        if anybody && !std::mem::replace(&mut self.marks_armed, true) {
            cx.arm(MARKS, cx.now.mono.after(self.marks_every));
        }
    }

    fn judge(&mut self, result: &io::Result<()>, path: &Path) {
        match result {
            Ok(()) if std::mem::take(&mut self.failing) => {
                log::info!(target: "state", "{} is written again", path.display());
            }
            Err(e) if !std::mem::replace(&mut self.failing, true) => {
                log::error!(target: "state", "cannot write {}: {}; trying again", path.display(), plain(e));
            }
            _ => {}
        }
    }
}

impl Service for State {
    fn name(&self) -> String {
        format!("state:{}", self.path.display())
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.take_lock()?;
        self.load(cx.now, cx.shared)?;
        self.arm_marks(cx);
        Ok(())
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == MARKS {
            self.marks_armed = false;
            self.arm_marks(cx);
        } else {
            self.gathering = false;
        }
        self.write(cx);
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        if cx.shared.members.changes().membership != self.written.membership {
            self.gather(GATHER, cx);
        }
        self.arm_marks(cx);
    }

    fn done(&mut self, _key: Key, result: Done, cx: &mut Cx<'_>) {
        let (Done::Written(result), Some(changes)) = (result, self.writing.take()) else { return };
        let path = self.path.clone();
        self.judge(&result, &path);
        if result.is_ok() {
            self.written = changes;
        }
        if cx.shared.members.changes().membership != self.written.membership {
            self.gather(if result.is_ok() { GATHER } else { RETRY }, cx);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if self.lock.is_none() || cx.shared.members.changes() == self.written {
            return;
        }
        // The last write cannot wait for the helper; nothing else is left to run.
        let result = replace_file(&self.path, ".last", &cx.shared.members.snapshot(cx.now), Care::STATE);
        let path = self.path.clone();
        self.judge(&result, &path);
    }
}
