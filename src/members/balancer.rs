//! One balancer: what an announcement, a goodbye and a deadline do to its members.

use super::hearing::{Hearing, Silence, Verdict};
use super::member::{Member, NO_MARK, State};
use super::recalled::Recalled;
use super::table::Table;
use super::timers::{Alarm, Timers};
use super::{Announce, BalancerId, Event, Facts, Heard, MAX_MEMBERS, Policy, Reason, What, Writer};
use crate::clock::{Mono, micros};
use std::time::Duration;

/// A named set of members under one policy.
#[derive(Debug)]
pub(super) struct Balancer {
    pub id: BalancerId,
    pub name: Box<str>,
    pub policy: Policy,
    pub table: Table,
    pub hearing: Hearing,
    /// How many members are up.
    pub up: usize,
    pub revision: u64,
    /// How often a mark or a last-seen time moved.
    pub moves: u64,
    /// When this process began to know the balancer.
    pub since: Mono,
    /// Silence before this time is held against nobody: hearing was lost until then, or we were not there.
    pub pardon: Mono,
    /// The last member up, overdue but spared (`--keep-last`).
    pub kept: Option<u32>,
    /// Hearing is back since the last [`Alarm::Resume`]; it had been lost at this time.
    pub recovered: Option<Mono>,
    /// An interval too long for the timeout has been noticed.
    slow_noticed: bool,
    /// Marks of urls that are not in the table, as others remember them, each until it guards nothing any more.
    recalled: Recalled,
}

impl Balancer {
    pub fn new(id: BalancerId, name: &str, policy: Policy, seed: [u64; 2], now: Mono) -> Balancer {
        Balancer {
            id,
            name: name.into(),
            policy,
            table: Table::new(seed),
            hearing: Hearing::new(now),
            up: 0,
            revision: 0,
            moves: 0,
            since: now,
            pardon: now,
            kept: None,
            recovered: None,
            slow_noticed: false,
            recalled: Recalled::default(),
        }
    }

    /// Puts a policy in force. Whoever is held or waits to be forgotten is judged again under the new one.
    pub fn govern(&mut self, mut policy: Policy, timers: &mut Timers) {
        policy.max_members = policy.max_members.clamp(1, MAX_MEMBERS);
        self.policy = policy;
        self.slow_noticed = false;
        self.table.reserve(policy.max_members);
        self.rearm_all(timers);
    }

    pub fn announce(&mut self, a: &Announce<'_>, now: Mono, timers: &mut Timers) -> Heard {
        let Some(index) = self.table.find(a.url) else { return self.newcomer(a, now, timers) };
        if a.replay_check && self.is_replay(index, a.ts) {
            self.hearing.missed(Silence::Other);
            return Heard::Dropped(Reason::ReplayedTs);
        }
        self.hear(now, timers);
        self.moves += 1;
        let slow = self.notice_interval(a);
        let member = self.table.get_mut(index);
        let before = member.timeout;
        let facts = Facts { slow, ..member.hear(a, now) };
        if member.state != State::Up {
            self.revive(index, timers);
            return Heard::Revived(self.table.id(index), facts);
        }
        // The timer that runs looks at the new times when it fires. Only without one, or if it would come too
        // late, is there anything to arm.
        let sooner = member.timeout < before || before == 0;
        if member.timeout != 0 && (member.timer.is_none() || sooner) {
            self.kept = self.kept.filter(|kept| *kept != index);
            self.rearm(index, timers);
        }
        if facts.reweighted.is_some() {
            self.revision += 1;
        }
        Heard::Refreshed(self.table.id(index), facts)
    }

    /// Who brought members here has ended. They are nobody's now, and none of them stays for ever for that.
    pub fn release(&mut self, writer: Writer, now: Mono, timers: &mut Timers) {
        for index in self.table.indices().collect::<Vec<_>>() {
            let member = self.table.get_mut(index);
            if member.writer != writer {
                continue;
            }
            member.writer = Writer::NOBODY;
            if member.state == State::Up && member.timeout == 0 {
                // Its silence did not count before, so it counts from now on.
                (member.timeout, member.last_seen) = (micros(self.policy.timeout), now);
                self.rearm(index, timers);
            }
        }
    }

    /// A writer takes those of nobody's members that it `admits`, and judges their silence by its own timeout.
    pub fn adopt(
        &mut self,
        writer: Writer,
        timeout: Duration,
        admits: &mut dyn FnMut(&Member) -> bool,
        timers: &mut Timers,
    ) {
        for index in self.table.indices().collect::<Vec<_>>() {
            let member = self.table.get_mut(index);
            if member.writer == Writer::NOBODY && admits(member) {
                (member.writer, member.timeout) = (writer, micros(timeout));
                self.rearm(index, timers);
            }
        }
    }

    pub fn leave(&mut self, url: &[u8], ts: i64, now: Mono, timers: &mut Timers) -> Heard {
        let Some(index) = self.table.find(url) else {
            self.hear(now, timers);
            return Heard::Ignored;
        };
        if self.is_replay(index, ts) {
            self.hearing.missed(Silence::Other);
            return Heard::Dropped(Reason::ReplayedTs);
        }
        self.hear(now, timers);
        self.moves += 1;
        let member = self.table.get_mut(index);
        member.mark = ts;
        member.last_seen = now;
        if member.state == State::Up {
            self.die(index, State::Left, now, timers);
            return Heard::Left(self.table.id(index));
        }
        // Its mark has moved, so its place is to be kept as if it had died now.
        self.table.unlink_dead(index);
        self.table.get_mut(index).dead_since = now;
        self.table.push_dead(index);
        Heard::Ignored
    }

    /// Somebody else accepted `mark` for a url: nothing up to it is to be accepted here. Of urls that are not in the
    /// table, as many are remembered as it may have members.
    pub fn recall(&mut self, url: &[u8], mark: i64, now: Mono) {
        if let Some(index) = self.table.find(url) {
            let member = self.table.get_mut(index);
            self.moves += u64::from(mark > member.mark);
            member.mark = member.mark.max(mark);
            return;
        }
        let until = now.after(self.replay_guard());
        self.recalled.note(url, mark, until, self.policy.max_members, now);
    }

    /// Whether a fresh timestamp is not newer than the url's mark.
    fn is_replay(&mut self, index: u32, ts: i64) -> bool {
        let mark = self.table.get(index).mark;
        if ts > mark {
            return false;
        }
        if self.is_nonsense(mark, ts) {
            self.table.get_mut(index).mark = NO_MARK;
            return ts == NO_MARK;
        }
        true
    }

    /// A mark that is further ahead of a fresh timestamp than two fresh ones can be apart was set while a clock was
    /// wrong, and means nothing: without this, a clock put right would keep everybody out until it has caught up.
    fn is_nonsense(&self, mark: i64, ts: i64) -> bool {
        let widest = i64::try_from(micros(self.policy.max_skew)).unwrap_or(i64::MAX).saturating_mul(2);
        mark != NO_MARK && mark.saturating_sub(ts) > widest
    }

    /// Something valid came for this balancer.
    pub fn hear(&mut self, now: Mono, timers: &mut Timers) {
        let Some(since) = self.hearing.heard(now) else { return };
        self.pardon = now;
        self.recover(since, now, timers);
    }

    /// What some of the members are read from can be reached again: from now on their absence counts.
    pub fn reached(&mut self, now: Mono, timers: &mut Timers) {
        let Some(since) = self.hearing.reached() else { return };
        self.since = now;
        self.recover(since, now, timers);
    }

    fn recover(&mut self, since: Mono, now: Mono, timers: &mut Timers) {
        // Without an alarm still to come: two recoveries before one `resume` are one.
        if self.recovered.is_none() && timers.arm(now, Alarm::Resume(self.id)).is_some() {
            self.recovered = Some(since);
        }
    }

    /// Hearing is back: everybody gets the deadline that the pardon allows.
    pub fn resume(&mut self, now: Mono, timers: &mut Timers, event: &mut dyn FnMut(Event<'_>)) {
        if let Some(since) = self.recovered.take() {
            self.tell(What::HearsAgain { deaf_for: now.since(since) }, event);
        }
        self.rearm_all(timers);
    }

    /// A member's alarm went off: is it really due, and if so, what becomes of it?
    pub fn judge(&mut self, index: u32, now: Mono, timers: &mut Timers, event: &mut dyn FnMut(Event<'_>)) {
        self.table.get_mut(index).timer = None;
        let member = self.table.get(index);
        let Some(due) = self.due(member) else { return };
        if now < due {
            self.arm(index, due, timers);
        } else if member.state == State::Up {
            self.judge_silence(index, now, timers, event);
        } else {
            let id = self.table.id(index);
            let member = self.table.remove_dead(index);
            self.revision += 1;
            self.tell(What::Forgotten { id, url: member.url() }, event);
        }
    }

    /// When the next thing is due for a member: eviction at the first moment *after* its timeout, or forgetting.
    pub fn due(&self, member: &Member) -> Option<Mono> {
        match member.state {
            State::Up if member.timeout == 0 => None,
            State::Up => {
                let from = member.last_seen.max(self.pardon);
                Some(Mono(from.0.saturating_add(member.timeout).saturating_add(1)))
            }
            State::Down | State::Left => {
                Some(member.dead_since.after(self.policy.forget.max(self.replay_guard())))
            }
        }
    }

    pub fn settles_at(&self) -> Option<Mono> {
        (!self.policy.timeout.is_zero()).then(|| self.since.after(self.policy.timeout))
    }

    /// Enters a member from the state file; it is not in the table, and there is room.
    pub fn reinstate(&mut self, member: Member, timers: &mut Timers) {
        let up = member.state == State::Up;
        let index = self.table.insert(member);
        if up {
            self.rise(index, timers);
        } else {
            self.table.push_dead(index);
            self.rearm(index, timers);
            self.revision += 1;
        }
    }

    fn newcomer(&mut self, a: &Announce<'_>, now: Mono, timers: &mut Timers) -> Heard {
        let mark = self.recalled.mark(a.url, now);
        if a.replay_check && a.ts <= mark && !self.is_nonsense(mark, a.ts) {
            self.hearing.missed(Silence::Other);
            return Heard::Dropped(Reason::ReplayedTs);
        }
        self.hear(now, timers);
        let made_room = self.table.len() >= self.policy.max_members;
        if made_room && !self.make_room(now, timers) {
            return Heard::Dropped(Reason::TableFull);
        }
        self.moves += 1;
        let slow = self.notice_interval(a);
        self.recalled.forget(a.url);
        let index = self.table.insert(Member::new(a, self.table.hash(a.url), now));
        self.rise(index, timers);
        Heard::Added(self.table.id(index), Facts { slow, made_room, ..Facts::default() })
    }

    /// Forgets whoever has been dead the longest, if for so long that its mark guards nothing any more.
    fn make_room(&mut self, now: Mono, timers: &mut Timers) -> bool {
        while self.table.len() >= self.policy.max_members {
            let Some(index) = self.table.longest_dead() else { return false };
            if now < self.table.get(index).dead_since.after(self.replay_guard()) {
                return false;
            }
            let gone = self.table.remove_dead(index);
            gone.timer.into_iter().for_each(|timer| timers.cancel(timer));
            self.revision += 1;
        }
        true
    }

    /// A timestamp accepted now may be ahead by the skew and stay fresh for as long again. Until that has passed,
    /// forgetting its mark would let it be replayed.
    fn replay_guard(&self) -> Duration {
        self.policy.max_skew.saturating_mul(2).saturating_add(Duration::from_micros(1))
    }

    fn revive(&mut self, index: u32, timers: &mut Timers) {
        self.table.unlink_dead(index);
        self.table.get_mut(index).state = State::Up;
        self.rise(index, timers);
    }

    /// A member came up. So the one that was only kept as the last may be judged.
    fn rise(&mut self, index: u32, timers: &mut Timers) {
        self.up += 1;
        self.revision += 1;
        self.rearm(index, timers);
        if let Some(kept) = self.kept.take() {
            self.rearm(kept, timers);
        }
    }

    fn die(&mut self, index: u32, state: State, now: Mono, timers: &mut Timers) {
        let member = self.table.get_mut(index);
        (member.state, member.dead_since) = (state, now);
        self.table.push_dead(index);
        self.up -= 1;
        self.revision += 1;
        self.kept = self.kept.filter(|kept| *kept != index);
        self.rearm(index, timers);
    }

    /// Silent for longer than its timeout. Evicts it, unless its silence proves nothing or it is the last.
    fn judge_silence(
        &mut self,
        index: u32,
        now: Mono,
        timers: &mut Timers,
        event: &mut dyn FnMut(Event<'_>),
    ) {
        // Of listeners with different timeouts the slowest rhythm counts, or its members' silence between two
        // announcements would look like deafness to the others.
        let timeout = self.table.get(index).timeout().max(self.policy.timeout);
        let (verdict, news) = self.hearing.judge(self.policy.when_deaf, timeout, self.up, now);
        if let Some(deafness) = self.hearing.unheard().filter(|_| news) {
            let (silent, up) = (now.since(deafness.last_heard), self.up);
            self.tell(What::Deaf { reason: deafness.reason, silent, up }, event);
        }
        if let Verdict::Hold(until) = verdict {
            until.into_iter().for_each(|until| self.arm(index, until, timers));
            return;
        }
        let (id, member) = (self.table.id(index), self.table.get(index));
        let silent = now.since(member.last_seen);
        if self.policy.keep_last && self.up == 1 {
            if self.kept != Some(index) {
                self.tell(What::KeptLast { id, url: member.url(), silent }, event);
            }
            self.kept = Some(index);
            return;
        }
        self.die(index, State::Down, now, timers);
        self.tell(What::Evicted { id, url: self.table.get(index).url(), silent }, event);
    }

    /// An announced interval that leaves no room for two losses within the timeout, noticed once.
    fn notice_interval(&mut self, a: &Announce<'_>) -> bool {
        let timeout = micros(a.timeout);
        let slow = timeout != 0 && a.every.is_some_and(|every| micros(every).saturating_mul(3) > timeout);
        slow && !std::mem::replace(&mut self.slow_noticed, true)
    }

    fn rearm_all(&mut self, timers: &mut Timers) {
        for index in self.table.indices().collect::<Vec<_>>() {
            self.rearm(index, timers);
        }
    }

    /// Replaces a member's timer by one for what is due next.
    fn rearm(&mut self, index: u32, timers: &mut Timers) {
        let member = self.table.get_mut(index);
        member.timer.take().into_iter().for_each(|timer| timers.cancel(timer));
        if let Some(due) = self.due(self.table.get(index)) {
            self.arm(index, due, timers);
        }
    }

    fn arm(&mut self, index: u32, at: Mono, timers: &mut Timers) {
        self.table.get_mut(index).timer = timers.arm(at, Alarm::Member(self.id, index));
    }

    fn tell(&self, what: What<'_>, event: &mut dyn FnMut(Event<'_>)) {
        event(Event { balancer: self.id, name: &self.name, what });
    }
}
