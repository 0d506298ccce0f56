//! The member table: balancers and their members, where everything of "be found" meets.
//!
//! Receivers write announcements into a named balancer; sinks, the proxy and `status` read the members as levels
//! and compare revisions. What lives here: who is up, why not, until when a silence is no death, which timestamps
//! are replays, who may be forgotten. It follows the reference receiver's table (urls compared byte for byte, one
//! replay mark per url that only moves forward, eviction after silence *strictly longer* than the timeout), and
//! adds goodbyes, forgetting and the judgement whether the receiver is deaf.
//!
//! This code never verifies a datagram, never shapes a url, never reads a clock, never logs: outcomes are values.
//!
//! A refresh touches no timer: each member's one alarm looks at the times when it goes off, and is armed again if
//! it was early. So an announcement costs a hash, a comparison and a few stores.

mod balancer;
mod check;
mod heard;
mod hearing;
mod member;
mod recalled;
mod saved;
mod table;
mod timers;

pub use check::fuzz_members;
pub use heard::{Announce, Facts, Heard, Reason, Writer};
pub use hearing::{DeafReason, Deafness, Silence, WhenDeaf};
pub use member::{MAX_HOST, Member, MemberId, State};
pub use saved::{Admit, Restored};

use crate::clock::Mono;
use balancer::Balancer;
use std::time::Duration;
use timers::{Alarm, Timers};

/// Names a balancer. An id is never given out twice in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BalancerId(u32);

impl Default for BalancerId {
    /// Names no balancer: for who has not been told yet.
    fn default() -> BalancerId {
        BalancerId(u32::MAX)
    }
}

/// The rules of one balancer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// How many members it may have, dead ones included; held within 1 and [`MAX_MEMBERS`].
    pub max_members: usize,
    /// A dead member is forgotten after this time, though never before its replay mark has become useless.
    pub forget: Duration,
    /// Never evict the last member that is up.
    pub keep_last: bool,
    /// What to do about evictions while nothing valid is heard at all.
    pub when_deaf: WhenDeaf,
    /// The largest timeout of its listeners; zero for never. It rules what comes from the state file, and
    /// [`Members::settled`]. Each announcement carries its own listener's.
    pub timeout: Duration,
    /// The largest freshness window of its listeners, either way.
    pub max_skew: Duration,
}

/// Something that happened because time passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event<'a> {
    /// Where.
    pub balancer: BalancerId,
    /// The balancer's name.
    pub name: &'a str,
    /// What.
    pub what: What<'a>,
}

/// The kinds of [`Event`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What<'a> {
    /// A member was silent for longer than its timeout and is down.
    Evicted {
        /// Who.
        id: MemberId,
        /// Its url.
        url: &'a [u8],
        /// For how long nothing was heard of it.
        silent: Duration,
    },
    /// A dead member is gone from the table.
    Forgotten {
        /// Who; the id is stale from now on.
        id: MemberId,
        /// Its url.
        url: &'a [u8],
    },
    /// The receiver is deaf: evictions are held, or soon will not be, as the policy says.
    Deaf {
        /// Why nothing valid comes.
        reason: DeafReason,
        /// For how long nothing valid has come.
        silent: Duration,
        /// How many members are up, and should be talking.
        up: usize,
    },
    /// Something valid was heard again. Everybody who was held has one full timeout.
    HearsAgain {
        /// For how long the receiver had been known to be deaf.
        deaf_for: Duration,
    },
    /// The last member up is silent for longer than its timeout, and spared until another comes up.
    KeptLast {
        /// Who.
        id: MemberId,
        /// Its url.
        url: &'a [u8],
        /// For how long nothing was heard of it.
        silent: Duration,
    },
}

/// All balancers and their members.
#[derive(Debug)]
pub struct Members {
    /// By id. A removed balancer leaves its place empty.
    balancers: Vec<Option<Box<Balancer>>>,
    timers: Timers,
    hash_seed: [u64; 2],
    /// Changes counted by balancers that are gone.
    gone: Changes,
}

/// How often what the state file holds has changed since the start. Compare with an earlier value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Members added, up, down, left, reweighted or forgotten.
    pub membership: u64,
    /// Messages that moved a replay mark or a last-seen time.
    pub marks: u64,
}

/// The most members a balancer can be configured for.
pub const MAX_MEMBERS: usize = 1 << 20;

impl Members {
    /// No balancers. The seed keys the hash of urls: random, so that nobody can aim at collisions.
    #[must_use]
    pub fn new(hash_seed: [u64; 2]) -> Members {
        Members { balancers: Vec::new(), timers: Timers::default(), hash_seed, gone: Changes::default() }
    }

    /// Creates a balancer, or puts a new policy in force for the one of this name. Memory for all its members is
    /// set aside here, and touched only as they come.
    ///
    /// # Panics
    /// After 2^32 balancers.
    pub fn balancer(&mut self, name: &str, policy: Policy, now: Mono) -> BalancerId {
        let id = self.find(name).unwrap_or_else(|| {
            let id = BalancerId(u32::try_from(self.balancers.len()).expect("fewer than 2^32 balancers"));
            self.balancers.push(Some(Box::new(Balancer::new(id, name, policy, self.hash_seed, now))));
            id
        });
        if let Some(balancer) = entry(&mut self.balancers, id) {
            balancer.govern(policy, &mut self.timers);
        }
        let most: usize = self.all().map(|b| b.policy.max_members + 1).sum();
        self.timers.reserve(most);
        id
    }

    /// Removes a balancer that nobody configures any more, with its members and their marks.
    pub fn remove(&mut self, b: BalancerId) {
        let Some(balancer) = self.balancers.get_mut(b.0 as usize).and_then(Option::take) else { return };
        for timer in balancer.table.iter().filter_map(|(_, member)| member.timer) {
            self.timers.cancel(timer);
        }
        self.gone.membership += balancer.revision + 1;
        self.gone.marks += balancer.moves;
    }

    /// A verified, fresh and admitted announcement.
    pub fn announce(&mut self, b: BalancerId, a: &Announce<'_>, now: Mono) -> Heard {
        let Some(balancer) = entry(&mut self.balancers, b) else { return Heard::Ignored };
        balancer.announce(a, now, &mut self.timers)
    }

    /// A verified and fresh goodbye; never one from an unauthenticated sender. Its timestamp moves the same mark
    /// as announcements do. Only a member that is up can leave.
    pub fn leave(&mut self, b: BalancerId, url: &[u8], ts: i64, now: Mono) -> Heard {
        let Some(balancer) = entry(&mut self.balancers, b) else { return Heard::Ignored };
        balancer.leave(url, ts, now, &mut self.timers)
    }

    /// A valid message without a url: no sign of a member, but a sign that this receiver hears.
    pub fn heartbeat(&mut self, b: BalancerId, now: Mono) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.hear(now, &mut self.timers);
        }
    }

    /// A datagram for this balancer was dropped before it came here. It explains a deafness.
    pub fn unheard(&mut self, b: BalancerId, why: Silence) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.hearing.missed(why);
        }
    }

    /// What members of the balancer are read from cannot be reached: it shows as deaf, and until one full timeout after it
    /// was [reached](Members::reached) again nobody's absence means anything. Members that announce themselves are judged
    /// as ever. True if it could be reached before.
    pub fn cut_off(&mut self, b: BalancerId, now: Mono) -> bool {
        entry(&mut self.balancers, b).is_some_and(|balancer| balancer.hearing.cut_off(now))
    }

    /// What members of the balancer are read from has been reached.
    pub fn reached(&mut self, b: BalancerId, now: Mono) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.reached(now, &mut self.timers);
        }
    }

    /// Who brought members into the balancer ends. What it brought stays, as [nobody's](Writer::NOBODY); those that it
    /// would never have evicted have the balancer's timeout from now on.
    pub fn release(&mut self, b: BalancerId, writer: Writer, now: Mono) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.release(writer, now, &mut self.timers);
        }
    }

    /// A writer begins. Nobody's members that it `admits` are its own from now on, and have its timeout; zero for never.
    pub fn adopt(
        &mut self,
        b: BalancerId,
        writer: Writer,
        timeout: Duration,
        admits: &mut dyn FnMut(&Member) -> bool,
    ) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.adopt(writer, timeout, admits, &mut self.timers);
        }
    }

    /// Another receiver, or we before a restart, accepted `mark` for a url: no timestamp up to it is accepted here. The
    /// url may be unknown; so many are remembered as the balancer may have members.
    pub fn recall(&mut self, b: BalancerId, url: &[u8], mark: i64, now: Mono) {
        if let Some(balancer) = entry(&mut self.balancers, b) {
            balancer.recall(url, mark, now);
        }
    }

    /// Does what is due at `now`, earliest first, and tells each thing done. Deliver what has been received first:
    /// a late announcement saves its member.
    pub fn expire(&mut self, now: Mono, event: &mut dyn FnMut(Event<'_>)) {
        while let Some(alarm) = self.timers.pop(now) {
            let (Alarm::Member(b, _) | Alarm::Resume(b)) = alarm;
            let Some(balancer) = entry(&mut self.balancers, b) else { continue };
            match alarm {
                Alarm::Member(_, index) => balancer.judge(index, now, &mut self.timers, event),
                Alarm::Resume(_) => balancer.resume(now, &mut self.timers, event),
            }
        }
    }

    /// When [`Members::expire`] should be called next; `None` if never.
    pub fn next_deadline(&mut self) -> Option<Mono> {
        self.timers.next()
    }

    /// The balancer of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<BalancerId> {
        self.all().find(|b| *b.name == *name).map(|b| b.id)
    }

    /// All balancers by id and name, in the order of their creation.
    pub fn balancers(&self) -> impl Iterator<Item = (BalancerId, &str)> {
        self.all().map(|b| (b.id, &*b.name))
    }

    /// A balancer's name; empty for one that was removed.
    #[must_use]
    pub fn name(&self, b: BalancerId) -> &str {
        self.of(b).map_or("", |b| &b.name)
    }

    /// A balancer's rules, while it exists.
    #[must_use]
    pub fn policy(&self, b: BalancerId) -> Option<&Policy> {
        self.of(b).map(|b| &b.policy)
    }

    /// Whether these very bytes are the url of a member that came by this writer: it has passed its admission before.
    #[must_use]
    pub fn knows(&self, b: BalancerId, url: &[u8], writer: Writer) -> bool {
        let table = self.of(b).map(|b| &b.table);
        table.is_some_and(|table| table.look_up(url).is_some_and(|index| table.get(index).writer == writer))
    }

    /// The member with this url.
    #[must_use]
    pub fn lookup(&self, b: BalancerId, url: &[u8]) -> Option<MemberId> {
        let table = &self.of(b)?.table;
        table.find(url).map(|index| table.id(index))
    }

    /// A member, unless it has been forgotten.
    #[must_use]
    pub fn get(&self, b: BalancerId, id: MemberId) -> Option<&Member> {
        self.of(b)?.table.by_id(id)
    }

    /// All members of a balancer, dead ones included, in no particular order.
    pub fn members(&self, b: BalancerId) -> impl Iterator<Item = (MemberId, &Member)> {
        self.of(b).into_iter().flat_map(|b| b.table.iter())
    }

    /// How many members a balancer has, dead ones included.
    #[must_use]
    pub fn count(&self, b: BalancerId) -> usize {
        self.of(b).map_or(0, |b| b.table.len())
    }

    /// How many members are up.
    #[must_use]
    pub fn up(&self, b: BalancerId) -> usize {
        self.of(b).map_or(0, |b| b.up)
    }

    /// Moves whenever a member is added, comes up, goes down, leaves, changes its weight or is forgotten; never on
    /// a refresh.
    #[must_use]
    pub fn revision(&self, b: BalancerId) -> u64 {
        self.of(b).map_or(0, |b| b.revision)
    }

    /// Whether the balancer's receiver is deaf, and why.
    #[must_use]
    pub fn deafness(&self, b: BalancerId) -> Option<Deafness> {
        self.of(b)?.hearing.deafness()
    }

    /// When something valid was last heard for this balancer; its creation if nothing was.
    #[must_use]
    pub fn last_heard(&self, b: BalancerId) -> Mono {
        self.of(b).map_or(Mono::ZERO, |b| b.hearing.last())
    }

    /// Whether one full timeout has passed since the balancer was created, or what it is read from was
    /// [reached](Members::reached) again: only now does the absence of a member mean anything. With timeout zero, never;
    /// nor while that is away, or all that ever came was dropped.
    #[must_use]
    pub fn settled(&self, b: BalancerId, now: Mono) -> bool {
        let ignorant = self.of(b).is_some_and(|b| b.hearing.is_ignorant(b.since));
        !ignorant && self.settles_at(b).is_some_and(|at| now >= at)
    }

    /// When [`Members::settled`] becomes true; `None` if never.
    #[must_use]
    pub fn settles_at(&self, b: BalancerId) -> Option<Mono> {
        self.of(b)?.settles_at()
    }

    /// Whether the state file is behind, and by what kind of change.
    #[must_use]
    pub fn changes(&self) -> Changes {
        self.all().fold(self.gone, |sum, b| Changes {
            membership: sum.membership + b.revision,
            marks: sum.marks + b.moves,
        })
    }

    fn of(&self, b: BalancerId) -> Option<&Balancer> {
        self.balancers.get(b.0 as usize)?.as_deref()
    }

    fn all(&self) -> impl Iterator<Item = &Balancer> {
        self.balancers.iter().flatten().map(|b| &**b)
    }
}

/// A balancer to change, while the timers can be changed too.
fn entry(balancers: &mut [Option<Box<Balancer>>], b: BalancerId) -> Option<&mut Balancer> {
    balancers.get_mut(b.0 as usize)?.as_deref_mut()
}
