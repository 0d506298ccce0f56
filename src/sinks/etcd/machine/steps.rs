//! What the machine asks of etcd, and what it makes of the answers.

use super::{Doing, Fault, Look, Machine, Note, Step, mark_text, read_mark, read_url, wire};
use crate::clock::{Mono, Now, micros};
use crate::sinks::diff::Goal;
use crate::url::Url;
use serde_json::Value;
use std::time::Duration;
use wire::{Call, Compare, Op, Txn};

impl Machine {
    /// Everybody's marks.
    pub(super) fn ask_marks(&self) -> Call {
        wire::txn(&Txn { then: vec![Op::Range(self.site.marks(), 0)], ..Txn::default() })
    }

    /// Keeps the leases that are due alive, and with them those that soon will be.
    pub(super) fn keep(&mut self, now: Mono) -> Option<(Doing, Call)> {
        self.notes.iter().find(|(_, note)| note.keep_at().is_some_and(|at| at <= now))?;
        let ripe = self.notes.iter().filter(|(_, note)| note.is_ripe(now)).map(|(url, _)| url.clone());
        let urls: Vec<Url> = ripe.take(KEPT_AT_ONCE).collect();
        let call = wire::keep(urls.iter().map(|url| self.site.lease(url)));
        Some((Doing::Keep(urls), call))
    }

    /// The next steps of the comparison, as many of one kind as fit into one call.
    pub(super) fn step(&mut self, now: Now) -> Option<(Doing, Call)> {
        loop {
            // What was decided may have been overtaken.
            let overtaken = |step: &Step| match step {
                Step::Put(url) => !current(self.goal(url), true),
                Step::Farewell(url) | Step::Revoke(url) => !current(self.goal(url), false),
            };
            let stale = self.todo.iter().take_while(|step| overtaken(step)).count();
            self.todo.drain(..stale);
            if let Some(Step::Revoke(url)) = self.todo.front().cloned() {
                self.todo.pop_front();
                let call = wire::revoke(self.site.lease(&url));
                return Some((Doing::Revoke(url), call));
            }
            let puts = matches!(self.todo.front()?, Step::Put(_));
            let urls: Vec<Url> = self.todo.iter().map_while(|step| step.url(puts)).take(BATCH).collect();
            if let Some(call) = self.lease_for(&urls, puts, now) {
                return Some(call);
            }
            self.todo.drain(..urls.len());
            let urls = urls.into_iter().filter(|url| current(self.goal(url), puts));
            let call = if puts { self.put(urls.collect(), now) } else { self.farewell(urls.collect(), now) };
            if call.is_some() {
                return call;
            }
        }
    }

    /// Writes marks that are due.
    pub(super) fn mark(&mut self, now: Now) -> Option<(Doing, Call)> {
        let due = self.notes.iter().any(|(_, note)| self.owes_mark(note, now.mono));
        if !due {
            return None;
        }
        let period = self.period(now);
        if self.period != Some(period) {
            return Some(self.grant_marks(period));
        }
        let nearly = now.mono.after(self.marks_every().unwrap_or_default() / 2);
        let ripe = self.notes.iter().filter(|(_, note)| self.owes_mark(note, nearly));
        let marks: Vec<(Url, i64)> =
            ripe.filter_map(|(url, note)| Some((url.clone(), note.facts.mark?))).take(BATCH).collect();
        let one = |(url, mark): &(Url, i64)| {
            Op::Txn(self.newest(url, *mark, *mark, vec![self.put_mark(url, *mark, period)]))
        };
        let call = wire::txn(&Txn { then: marks.iter().map(one).collect(), ..Txn::default() });
        Some((Doing::Mark(marks), call))
    }

    /// Whether etcd is to be told a member's mark at `now`.
    pub(super) fn owes_mark(&self, note: &Note, now: Mono) -> bool {
        let newer = note.facts.mark.is_some() && note.facts.mark > note.marked;
        let due = match self.marks_every().filter(|_| note.is_up() && !self.closing) {
            Some(every) => now >= note.marked_at.after(every),
            None => !note.is_up() || self.closing,
        };
        newer && due
    }

    /// When to ask [`Machine::owes_mark`] again.
    pub(super) fn mark_at(&self, note: &Note, now: Mono) -> Option<Mono> {
        let every = self.marks_every().filter(|_| note.is_up() && note.facts.mark.is_some())?;
        Some(note.marked_at.after(every).max(now.after(every / 4)))
    }

    /// What became of leases that were to be kept. Of those that nothing is said of, nothing is known: they are still
    /// due. Whether anything was said at all.
    pub(super) fn kept(&mut self, urls: &[Url], kept: &[(i64, Option<u32>)], now: Mono) -> bool {
        let mut any = false;
        for url in urls {
            let lease = self.site.lease(url);
            let Some((_, ttl)) = kept.iter().find(|(known, _)| *known == lease) else { continue };
            any = true;
            let Some(note) = self.notes.get_mut(url) else { continue };
            (note.kept, note.ttl) = (now, *ttl);
            if ttl.is_none() {
                note.expired = true;
                self.look_at = now;
            } else {
                note.contested = 0;
            }
        }
        any
    }

    /// An answer that does not say no.
    pub(super) fn take(&mut self, doing: Doing, reply: &Value, now: Now) -> Result<(), Fault> {
        match doing {
            Doing::Recall => self.recall(reply)?,
            Doing::Look => match self.mirror.take(reply)? {
                Look::Again | Look::Other => self.look_at = now.mono,
                Look::Same | Look::Changed => self.decide(now.mono),
            },
            Doing::Grant(url) => {
                let ttl = wire::granted(reply)?;
                if let Some(note) = self.notes.get_mut(&url) {
                    (note.ttl, note.kept, note.expired) = (Some(ttl), now.mono, false);
                }
            }
            Doing::GrantMarks(period) => self.period = Some(period),
            Doing::Put(urls) => {
                let done = wire::outcomes(reply, urls.len())?;
                for ((url, mark), done) in urls.into_iter().zip(done) {
                    self.put_done(&url, mark, done, now.mono);
                }
                self.dirty = true;
            }
            Doing::Farewell(urls) => {
                let done = wire::outcomes(reply, urls.len())?;
                for ((url, mark), done) in urls.into_iter().zip(done).rev() {
                    let Some(note) = self.notes.get_mut(&url) else { continue };
                    (note.farewell, note.marked) = (Some(mark), note.marked.max(Some(mark)));
                    if done {
                        self.todo.push_front(Step::Revoke(url));
                    }
                }
                self.dirty = true;
            }
            Doing::Mark(marks) => {
                wire::outcomes(reply, marks.len())?;
                for (url, mark) in marks {
                    if let Some(note) = self.notes.get_mut(&url) {
                        (note.marked, note.marked_at) = (note.marked.max(Some(mark)), now.mono);
                    }
                }
            }
            Doing::Revoke(url) => {
                if let Some(note) = self.notes.get_mut(&url) {
                    note.ttl = None;
                }
            }
            Doing::Keep(_) => {}
        }
        Ok(())
    }

    fn put_done(&mut self, url: &Url, mark: Option<i64>, done: bool, now: Mono) {
        let Some(note) = self.notes.get_mut(url) else { return };
        if done {
            note.written = true;
            note.refused = None;
            (note.marked, note.marked_at) = (note.marked.max(mark), now);
        } else {
            note.refused = mark;
            note.error = Some("another receiver has heard something newer".to_owned());
        }
    }

    fn recall(&mut self, reply: &Value) -> Result<(), Fault> {
        let prefix = self.site.marks();
        let rows = wire::ranges(reply, 1)?.into_iter().flat_map(|range| range.rows);
        self.found =
            rows.filter_map(|(key, row)| Some((read_url(&key, &prefix)?, read_mark(&row.value)?))).collect();
        self.recalled = true;
        Ok(())
    }

    fn goal(&self, url: &Url) -> Option<Goal> {
        self.notes.get(url)?.goal
    }

    /// The grant that something must wait for, if any.
    fn lease_for(&self, urls: &[Url], puts: bool, now: Now) -> Option<(Doing, Call)> {
        let notes = || urls.iter().filter_map(|url| Some((url, self.notes.get(url)?)));
        if puts && let Some((url, note)) = notes().find(|(_, note)| note.ttl.is_none()) {
            return Some((Doing::Grant(url.clone()), wire::grant(self.site.lease(url), note.facts.ttl())));
        }
        let (marks, period) = (notes().any(|(_, note)| note.facts.mark.is_some()), self.period(now));
        (marks && self.period != Some(period)).then(|| self.grant_marks(period))
    }

    fn grant_marks(&self, period: i64) -> (Doing, Call) {
        let ttl = u32::try_from(self.max_skew.as_secs().saturating_mul(4)).unwrap_or(u32::MAX);
        (Doing::GrantMarks(period), wire::grant(self.site.marks_lease(period), ttl.clamp(2, 9_000_000)))
    }

    fn put(&self, urls: Vec<Url>, now: Now) -> Option<(Doing, Call)> {
        let mut ops = Vec::new();
        let mut put = Vec::new();
        for url in urls {
            let Some(note) = self.notes.get(&url) else { continue };
            let lease = self.site.lease(&url);
            let mut all: Vec<Op> =
                note.entries.iter().map(|(key, value)| set(key, value.as_deref(), lease)).collect();
            let mark = note.facts.mark;
            ops.push(Op::Txn(match mark {
                Some(mark) => {
                    all.push(self.put_mark(&url, mark, self.period(now)));
                    self.newest(&url, mark.saturating_add(1), mark, all)
                }
                None => Txn { then: all, ..Txn::default() },
            }));
            put.push((url, mark));
        }
        let call = wire::txn(&Txn { then: ops, ..Txn::default() });
        (!put.is_empty()).then_some((Doing::Put(put), call))
    }

    fn farewell(&self, urls: Vec<Url>, now: Now) -> Option<(Doing, Call)> {
        let mut ops = Vec::new();
        let mut left = Vec::new();
        for url in urls {
            let Some((note, mark)) = self.notes.get(&url).and_then(|note| Some((note, note.facts.mark?)))
            else {
                continue;
            };
            let mut all: Vec<Op> = note.entries.iter().map(|(key, _)| Op::Delete(key.clone())).collect();
            all.push(self.put_mark(&url, mark, self.period(now)));
            ops.push(Op::Txn(self.newest(&url, mark, mark, all)));
            left.push((url, mark));
        }
        let call = wire::txn(&Txn { then: ops, ..Txn::default() });
        (!left.is_empty()).then_some((Doing::Farewell(left), call))
    }

    fn put_mark(&self, url: &Url, mark: i64, period: i64) -> Op {
        Op::Put(self.site.mark(url), mark_text(mark), self.site.marks_lease(period))
    }

    /// Does `ops` unless etcd has a mark of the url from `below` on. One that is further ahead than two fresh
    /// timestamps can be apart was written by a wrong clock, and means nothing.
    fn newest(&self, url: &Url, below: i64, mark: i64, ops: Vec<Op>) -> Txn {
        let key = self.site.mark(url);
        let widest = i64::try_from(micros(self.max_skew)).unwrap_or(i64::MAX).saturating_mul(2);
        let nonsense = Compare::Greater(key.clone(), mark_text(mark.saturating_add(widest)));
        let otherwise = Txn { compare: Some(nonsense), then: ops.clone(), otherwise: Vec::new() };
        let older = Compare::Less(key.clone(), mark_text(below));
        let otherwise = Txn { compare: Some(older), then: ops.clone(), otherwise: vec![Op::Txn(otherwise)] };
        Txn { compare: Some(Compare::Missing(key)), then: ops, otherwise: vec![Op::Txn(otherwise)] }
    }

    /// The period of time whose marks share a lease: its leases last for two of them.
    fn period(&self, now: Now) -> i64 {
        let length = i64::try_from(micros(self.max_skew)).unwrap_or(i64::MAX).saturating_mul(2).max(1);
        now.unix_us.div_euclid(length)
    }

    /// Between two marks of a member that is up; none for never.
    fn marks_every(&self) -> Option<Duration> {
        Some(self.pace.marks.unwrap_or(self.max_skew / 3)).filter(|every| !every.is_zero())
    }
}

impl Step {
    /// The url of a step of this kind.
    fn url(&self, put: bool) -> Option<Url> {
        match self {
            Step::Put(url) if put => Some(url.clone()),
            Step::Farewell(url) if !put => Some(url.clone()),
            _ => None,
        }
    }
}

fn current(goal: Option<Goal>, put: bool) -> bool {
    if put { matches!(goal, Some(Goal::Up(_))) } else { goal == Some(Goal::Drain) }
}

fn set(key: &str, value: Option<&str>, lease: i64) -> Op {
    match value {
        Some(value) => Op::Put(key.to_owned(), value.to_owned(), lease),
        None => Op::Delete(key.to_owned()),
    }
}

/// Members written in one transaction: etcd takes 128 operations, a few of which are in each of these.
const BATCH: usize = 64;
/// Leases kept in one request. etcd's gateway begins to answer while it still reads, and then what it has not read is
/// lost without a word; so many lie in the first buffer it fills, and of a thousand a quarter was lost now and then.
const KEPT_AT_ONCE: usize = 100;
