//! The member table under a simulated network, on virtual time.
//!
//! Senders announce with jitter, die, return and say goodbye; the network loses, duplicates, delays and reorders;
//! clocks are set on either side; the receiver goes deaf in four ways and is restarted from its state file. An
//! account kept beside the table, by other means and without timers, says after every step what the table may have
//! done and what it must have done by now. A failure names its seed; run one again with `SIM_SEED=N`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use beacond::clock::{Mono, Now};
use beacond::members::{
    Announce, BalancerId, DeafReason, Event, Heard, Members, Policy, Reason, Silence, State, What, WhenDeaf,
};
use beacond::state_text::decode;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[test]
fn many_seeds() {
    let seeds = match std::env::var("SIM_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("SIM_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..400,
    };
    let mut seen = Tally::default();
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| Sim::new(seed).run());
        match outcome {
            Ok(tally) => seen.add(&tally),
            Err(panic) => {
                eprintln!("simulation failed: SIM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    if seeds.end - seeds.start > 1 {
        seen.is_rich();
    }
}

const S: u64 = 1_000_000;
const EPOCH: i64 = 1_780_646_570_000_000;
/// When a simulation starts: late enough that the clocks may be set back.
const START: u64 = 10_000 * S;

/// A small generator (SplitMix64): the simulation is the same for a seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// A backend that announces itself.
struct Sender {
    url: Vec<u8>,
    interval: u64,
    /// How far its clock is from true time.
    skew: i64,
    last_ts: i64,
    alive: bool,
    next: u64,
    weight: u16,
}

impl Sender {
    /// `max(now, last + 1)` while the last is less than a second ahead of the clock, otherwise the clock.
    fn ts(&mut self, true_unix: i64) -> i64 {
        let clock = true_unix + self.skew;
        self.last_ts = if self.last_ts - clock < 1_000_000 { clock.max(self.last_ts + 1) } else { clock };
        self.last_ts
    }
}

#[derive(Clone)]
struct Datagram {
    sender: usize,
    ts: i64,
    weight: u16,
    leave: bool,
}

/// Why the receiver hears nothing, if it does not.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ear {
    Fine,
    Nothing,
    WrongSecret,
    /// Its clock is an hour off.
    WrongClock,
    Mixed,
}

/// What the account says about one member.
#[derive(Clone)]
struct Account {
    state: State,
    mark: i64,
    heard: u64,
    died: u64,
    timeout: u64,
}

/// How much of each thing the runs have seen, so that a simulation that tests nothing is noticed.
#[derive(Default, Debug)]
struct Tally {
    counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn add(&mut self, other: &Tally) {
        for (what, n) in &other.counts {
            *self.counts.entry(what).or_default() += n;
        }
    }

    fn is_rich(&self) {
        for what in [
            "added",
            "refreshed",
            "revived",
            "left",
            "replayed",
            "full",
            "evicted",
            "forgotten",
            "deaf Nothing",
            "deaf AllStale",
            "deaf AllBadMac",
            "deaf Mixed",
            "hears",
            "kept",
            "restart",
            "crash",
            "stale",
        ] {
            assert!(self.counts.get(what).is_some_and(|n| *n >= 5), "hardly any {what}: {self:?}");
        }
    }
}

struct Sim {
    random: Random,
    now: u64,
    /// How far the receiver's wall clock is from true time, and its monotonic clock's origin.
    wall: i64,
    origin: u64,
    senders: Vec<Sender>,
    /// In flight: arrival time and a serial number to the datagram.
    network: BTreeMap<(u64, u64), Datagram>,
    serial: u64,
    loss: u64,
    duplication: u64,
    ear: Ear,
    members: Members,
    b: BalancerId,
    policy: Policy,
    account: BTreeMap<Vec<u8>, Account>,
    /// Accepted (url, ts); none may be accepted twice.
    accepted: BTreeSet<(Vec<u8>, i64)>,
    /// Since when silence counts, after a deafness or a restart.
    pardon: u64,
    last_heard: u64,
    missed: BTreeSet<&'static str>,
    deaf: Option<u64>,
    /// The receiver's clock went back, or it came back from an old file: a replay may pass.
    replays_possible: bool,
    snapshot: Vec<u8>,
    tally: Tally,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let policy = Policy {
            max_members: if random.percent(30) { 4 } else { 256 },
            forget: Duration::from_secs([0, 90, 3600][usize::try_from(random.below(3)).unwrap()]),
            keep_last: random.percent(40),
            when_deaf: match random.below(4) {
                0 => WhenDeaf::Evict,
                1 => WhenDeaf::HoldFor(Duration::from_secs(random.between(1, 90))),
                _ => WhenDeaf::Hold,
            },
            timeout: Duration::from_secs(30),
            max_skew: Duration::from_secs([5, 30][usize::try_from(random.below(2)).unwrap()]),
        };
        let origin = 1 << 40;
        let mut members = Members::new([random.next(), random.next()]);
        let b = members.balancer("sim", policy, Mono(origin + START));
        let count = random.between(1, 8);
        let senders = (0..count).map(|n| Sender {
            url: format!("http://10.0.0.{n}:80").into(),
            interval: random.between(S, 8 * S),
            skew: i64::try_from(random.below(4 * S)).unwrap() - 2_000_000,
            last_ts: 0,
            alive: random.percent(80),
            next: START + random.below(5 * S),
            weight: 1,
        });
        let senders: Vec<_> = senders.collect();
        let snapshot = members.snapshot(Now { mono: Mono(origin + START), unix_us: EPOCH });
        Sim {
            loss: random.between(5, 30),
            duplication: random.below(20),
            random,
            now: START,
            wall: 0,
            origin,
            senders,
            network: BTreeMap::new(),
            serial: 0,
            ear: Ear::Fine,
            members,
            b,
            policy,
            account: BTreeMap::new(),
            accepted: BTreeSet::new(),
            pardon: START,
            last_heard: START,
            missed: BTreeSet::new(),
            deaf: None,
            replays_possible: false,
            snapshot,
            tally: Tally::default(),
        }
    }

    fn run(mut self) -> Tally {
        let end = START + self.random.between(300, 900) * S;
        let mut next_fate = START + self.random.below(20 * S);
        while self.now < end {
            let departure = self.senders.iter().filter(|s| s.alive).map(|s| s.next).min();
            let arrival = self.network.keys().next().map(|key| key.0);
            let deadline = self.members.next_deadline().map(|at| at.0 - self.origin);
            let times = [Some(next_fate), departure, arrival, deadline];
            self.now = times.into_iter().flatten().min().expect("fate comes").max(self.now);
            if next_fate <= self.now {
                self.fate();
                next_fate = self.now + self.random.below(25 * S);
            }
            self.depart();
            self.arrive();
            self.expire();
            self.check();
        }
        self.tally
    }

    fn true_unix(&self) -> i64 {
        EPOCH + i64::try_from(self.now).unwrap()
    }

    fn mono(&self) -> Mono {
        Mono(self.origin + self.now)
    }

    /// What the receiver reads from its clocks.
    fn clocks(&self) -> Now {
        Now { mono: self.mono(), unix_us: self.true_unix() + self.wall }
    }

    /// One thing that happens in the world.
    fn fate(&mut self) {
        let count = u64::try_from(self.senders.len()).unwrap();
        let who = usize::try_from(self.random.below(count)).unwrap();
        match self.random.below(12) {
            0 | 1 => self.senders[who].alive = false,
            2 | 3 => {
                self.senders[who].alive = true;
                self.senders[who].next = self.now;
            }
            4 => {
                self.senders[who].alive = false;
                for n in 0..3 {
                    self.send(who, true, n * 20_000);
                }
            }
            5 => self.senders[who].skew += i64::try_from(self.random.below(20 * S)).unwrap() - 10_000_000,
            6 => {
                let step = i64::try_from(self.random.below(8 * S)).unwrap() - 4_000_000;
                self.wall += step;
                self.replays_possible |= step < 0;
            }
            7 => self.senders[who].weight = u16::try_from(self.random.below(257)).unwrap(),
            8 => {
                let ears = [Ear::Nothing, Ear::WrongSecret, Ear::WrongClock, Ear::Mixed];
                self.ear = ears[usize::try_from(self.random.below(4)).unwrap()];
            }
            9 => self.restart(),
            10 => self.snapshot = self.members.snapshot(self.clocks()),
            _ => {}
        }
        if self.ear != Ear::Fine && self.random.percent(25) {
            self.ear = Ear::Fine;
        }
    }

    fn depart(&mut self) {
        for who in 0..self.senders.len() {
            if self.senders[who].alive && self.senders[who].next <= self.now {
                self.send(who, false, 0);
                let interval = self.senders[who].interval;
                self.senders[who].next =
                    self.now + self.random.between(interval * 9 / 10, interval * 11 / 10);
            }
        }
    }

    fn send(&mut self, who: usize, leave: bool, after: u64) {
        let unix = self.true_unix() + i64::try_from(after).unwrap();
        let sender = &mut self.senders[who];
        let datagram = Datagram { sender: who, ts: sender.ts(unix), weight: sender.weight, leave };
        let copies = 1 + u64::from(self.random.percent(self.duplication));
        for _ in 0..copies {
            if self.random.percent(self.loss) {
                continue;
            }
            // Most arrive at once, some so late that others overtake them.
            let delay =
                if self.random.percent(10) { self.random.below(9 * S) } else { self.random.below(3000) };
            self.serial += 1;
            self.network.insert((self.now + after + delay, self.serial), datagram.clone());
        }
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.network.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let datagram = entry.remove();
            self.receive(&datagram);
        }
    }

    /// What a listener does before the table: the ear, and freshness.
    fn receive(&mut self, datagram: &Datagram) {
        let ear = match self.ear {
            Ear::Mixed if self.random.percent(50) => Ear::WrongSecret,
            Ear::Mixed => Ear::WrongClock,
            other => other,
        };
        let wall = self.clocks().unix_us + if ear == Ear::WrongClock { 3_600_000_000 } else { 0 };
        let skew = i64::try_from(self.policy.max_skew.as_micros()).unwrap();
        match ear {
            Ear::Nothing => {}
            Ear::WrongSecret => {
                self.members.unheard(self.b, Silence::BadMac);
                self.missed.insert("mac");
            }
            _ if (wall - datagram.ts).abs() > skew => {
                self.tally.count("stale");
                self.members.unheard(self.b, Silence::Stale);
                self.missed.insert("stale");
            }
            _ => self.hear(datagram),
        }
        self.members.invariants().unwrap();
    }

    fn hear(&mut self, datagram: &Datagram) {
        let url = self.senders[datagram.sender].url.clone();
        let revision = self.members.revision(self.b);
        let known = self.account.get(&url).cloned();
        let mark = known.as_ref().map_or(i64::MIN, |k| k.mark);
        let heard = if datagram.leave {
            self.members.leave(self.b, &url, datagram.ts, self.mono())
        } else {
            let timeout = self.policy.timeout;
            let (ts, weight) = (datagram.ts, datagram.weight);
            let a = Announce { url: &url, ts, timeout, weight, ..Announce::default() };
            self.members.announce(self.b, &a, self.mono())
        };
        if heard == Heard::Dropped(Reason::ReplayedTs) {
            self.tally.count("replayed");
            assert!(datagram.ts <= mark, "a fresh timestamp was taken for a replay");
            self.missed.insert("other");
            return;
        }
        assert!(datagram.ts > mark, "a replay was accepted");
        self.heard_something();
        if heard == Heard::Dropped(Reason::TableFull) {
            self.tally.count("full");
            assert!(known.is_none() && self.account.len() >= self.policy.max_members);
            let guard = self.guard();
            assert!(self.account.values().all(|a| a.state == State::Up || self.now - a.died < guard));
            return;
        }
        let entry = Account {
            state: State::Up,
            mark: datagram.ts,
            heard: self.now,
            died: self.now,
            timeout: u64::try_from(self.policy.timeout.as_micros()).unwrap(),
        };
        self.judge(heard, datagram, known.as_ref(), revision);
        match (datagram.leave, known) {
            (true, None) => return,
            (true, Some(was)) => {
                let state = if was.state == State::Up { State::Left } else { was.state };
                self.account.insert(url.clone(), Account { state, ..entry });
            }
            (false, _) => drop(self.account.insert(url.clone(), entry)),
        }
        let fresh = self.accepted.insert((url, datagram.ts));
        assert!(fresh || self.replays_possible, "the same timestamp was accepted twice");
    }

    /// Is the outcome what the account expects?
    fn judge(&mut self, heard: Heard, datagram: &Datagram, known: Option<&Account>, revision: u64) {
        let up = known.is_some_and(|k| k.state == State::Up);
        let moved = self.members.revision(self.b) != revision;
        match heard {
            Heard::Added(_, facts) => {
                self.tally.count("added");
                assert!(known.is_none() && moved && !datagram.leave);
                if facts.made_room {
                    self.yielded();
                }
            }
            Heard::Refreshed(_, facts) => {
                self.tally.count("refreshed");
                assert!(up && !datagram.leave && moved == facts.reweighted.is_some());
            }
            Heard::Revived(..) => {
                self.tally.count("revived");
                assert!(known.is_some() && !up && moved && !datagram.leave);
            }
            Heard::Left(_) => {
                self.tally.count("left");
                assert!(up && moved && datagram.leave);
            }
            Heard::Ignored => assert!(!up && !moved && datagram.leave),
            Heard::Dropped(_) => unreachable!("dealt with before"),
        }
    }

    /// The table was full, and somebody was forgotten: whoever had been dead the longest.
    fn yielded(&mut self) {
        let dead = self.account.iter().filter(|(_, a)| a.state != State::Up);
        let oldest = dead.clone().map(|(_, a)| a.died).min().expect("somebody dead");
        let gone: Vec<_> = dead.filter(|(url, _)| self.members.lookup(self.b, url).is_none()).collect();
        assert!(gone.len() == 1 && gone[0].1.died == oldest, "not the one dead longest");
        assert!(self.now - oldest >= self.guard(), "its mark still guarded");
        let url = gone[0].0.clone();
        self.account.remove(&url);
    }

    /// For how long after its death a member's mark is needed: twice the skew and a microsecond.
    fn guard(&self) -> u64 {
        2 * u64::try_from(self.policy.max_skew.as_micros()).unwrap() + 1
    }

    fn heard_something(&mut self) {
        self.last_heard = self.now;
        self.missed.clear();
        if self.deaf.take().is_some() {
            self.pardon = self.now;
        }
    }

    fn expire(&mut self) {
        let mut events = Vec::new();
        let at = self.mono();
        self.members.expire(at, &mut |event| events.push(Told::from(&event)));
        for event in events {
            self.account_for(&event);
        }
        assert!(self.members.next_deadline().is_none_or(|next| next > at), "left something undone");
    }

    /// May this have happened now? Then it has.
    fn account_for(&mut self, told: &Told) {
        let up = self.account.values().filter(|a| a.state == State::Up).count();
        match told {
            Told::Evicted(url, silent) => {
                self.tally.count("evicted");
                let member = self.account.get(url).expect("evicted a stranger").clone();
                assert_eq!(member.state, State::Up);
                let base = member.heard.max(self.pardon);
                assert!(self.now - base > member.timeout, "evicted too early");
                assert_eq!(*silent, self.now - member.heard);
                assert!(!(self.policy.keep_last && up == 1), "the last one up");
                assert!(!self.holds(member.timeout, up), "evicted while deaf");
                let entry = self.account.get_mut(url).expect("known");
                (entry.state, entry.died) = (State::Down, self.now);
            }
            Told::Forgotten(url) => {
                self.tally.count("forgotten");
                let member = self.account.remove(url).expect("forgot a stranger");
                let forget = u64::try_from(self.policy.forget.as_micros()).unwrap();
                assert!(member.state != State::Up && self.now - member.died >= forget.max(self.guard()));
            }
            Told::Deaf(reason, told_up) => {
                assert!(self.deaf.is_none() && up >= 2 && *told_up == up);
                assert_ne!(self.policy.when_deaf, WhenDeaf::Evict);
                let half = u64::try_from(self.policy.timeout.as_micros()).unwrap() / 2;
                assert!(self.now - self.last_heard > half);
                let missed: Vec<_> = self.missed.iter().copied().collect();
                let (wanted, count) = match missed[..] {
                    [] => (DeafReason::Nothing, "deaf Nothing"),
                    ["stale"] => (DeafReason::AllStale, "deaf AllStale"),
                    ["mac"] => (DeafReason::AllBadMac, "deaf AllBadMac"),
                    _ => (DeafReason::Mixed, "deaf Mixed"),
                };
                assert_eq!(*reason, wanted);
                self.tally.count(count);
                self.deaf = Some(self.now);
            }
            Told::Hears => {
                self.tally.count("hears");
                assert!(self.deaf.is_none() && self.now - self.pardon <= 1000, "told late");
            }
            Told::Kept(url) => {
                self.tally.count("kept");
                assert!(self.policy.keep_last && up == 1 && self.account[url].state == State::Up);
            }
        }
    }

    /// Whether deafness forbids an eviction now.
    fn holds(&self, timeout: u64, up: usize) -> bool {
        match (self.policy.when_deaf, self.deaf) {
            (WhenDeaf::Evict, _) => false,
            (WhenDeaf::HoldFor(limit), Some(since)) => self.mono() < Mono(self.origin + since).after(limit),
            (WhenDeaf::Hold, Some(_)) => true,
            (_, None) => up >= 2 && self.now - self.last_heard > timeout / 2,
        }
    }

    /// What must hold now, whatever has happened.
    fn check(&mut self) {
        self.members.invariants().unwrap();
        let table: BTreeMap<_, _> =
            self.members.members(self.b).map(|(_, m)| (m.url().to_vec(), (m.state(), m.mark()))).collect();
        let account: BTreeMap<_, _> =
            self.account.iter().map(|(url, a)| (url.clone(), (a.state, Some(a.mark)))).collect();
        assert_eq!(table, account);
        assert_eq!(self.members.deafness(self.b).is_some(), self.deaf.is_some());
        let up = self.account.values().filter(|a| a.state == State::Up).count();
        assert_eq!(self.members.up(self.b), up);
        for (url, member) in self.account.iter().filter(|(_, a)| a.state == State::Up) {
            let overdue = self.now.saturating_sub(member.heard.max(self.pardon) + member.timeout);
            let spared = self.holds(member.timeout, up) || (self.policy.keep_last && up == 1);
            assert!(overdue <= 10_000 || spared, "{} is {overdue} us overdue", String::from_utf8_lossy(url));
        }
        for member in self.account.values().filter(|a| a.state != State::Up) {
            let kept = u64::try_from(self.policy.forget.as_micros()).unwrap().max(self.guard());
            assert!(self.now - member.died <= kept + 10_000, "not forgotten in time");
        }
    }

    /// The receiver dies and comes back: after a clean end with the file of this moment, after a crash with an
    /// older one. Time passes in between, and the new monotonic clock has nothing to do with the old.
    fn restart(&mut self) {
        let crash = self.random.percent(30);
        self.tally.count(if crash { "crash" } else { "restart" });
        if !crash {
            self.snapshot = self.members.snapshot(self.clocks());
        }
        self.now += self.random.below(20 * S);
        self.network.retain(|key, _| key.0 > self.now);
        self.origin = (1 << 40) + self.random.below(1 << 40);
        let now = self.clocks();
        self.members = Members::new([self.random.next(), self.random.next()]);
        self.b = self.members.balancer("sim", self.policy, now.mono);
        let saved = decode(&self.snapshot).expect("our own text");
        self.members.restore(saved, now, &mut |_, url| Some(url.to_vec()));
        self.members.invariants().unwrap();
        (self.pardon, self.last_heard, self.deaf) = (self.now, self.now, None);
        self.missed.clear();
        self.replays_possible |= crash;
        let states = self.account.iter().map(|(url, a)| (url.clone(), a.state, Some(a.mark)));
        let before: BTreeSet<_> = states.map(|(url, state, mark)| (url, state.name(), mark)).collect();
        let restored = self.members.members(self.b);
        let after: BTreeSet<_> =
            restored.map(|(_, m)| (m.url().to_vec(), m.state().name(), m.mark())).collect();
        assert!(crash || before == after, "a clean restart changed the table");
        // From here on the account believes what the file said.
        let timeout = u64::try_from(self.policy.timeout.as_micros()).unwrap();
        let ago = |then: Mono| self.now.saturating_sub(now.mono.since(then).as_micros().try_into().unwrap());
        let restored = self.members.members(self.b).map(|(_, m)| {
            let (state, mark, heard) = (m.state(), m.mark().unwrap(), ago(m.last_seen()));
            (m.url().to_vec(), Account { state, mark, heard, died: m.dead_since().map_or(0, ago), timeout })
        });
        let restored = restored.collect();
        self.account = restored;
    }
}

/// An event without its borrows.
enum Told {
    Evicted(Vec<u8>, u64),
    Forgotten(Vec<u8>),
    Deaf(DeafReason, usize),
    Hears,
    Kept(Vec<u8>),
}

impl From<&Event<'_>> for Told {
    fn from(event: &Event<'_>) -> Told {
        match event.what {
            What::Evicted { url, silent, .. } => {
                Told::Evicted(url.to_vec(), silent.as_micros().try_into().unwrap())
            }
            What::Forgotten { url, .. } => Told::Forgotten(url.to_vec()),
            What::Deaf { reason, up, .. } => Told::Deaf(reason, up),
            What::HearsAgain { .. } => Told::Hears,
            What::KeptLast { url, .. } => Told::Kept(url.to_vec()),
        }
    }
}
