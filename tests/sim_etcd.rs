//! The machine of the sink `etcd` against a model of etcd on virtual time: one that loses requests and answers, does
//! things twice, answers nonsense, claims what it did not do, restarts with its leases back to their full time, and is
//! made anew; with one writer or several, whose datagrams get lost.
//!
//! Whatever happened, once it stops happening exactly the members that are heard are in etcd, and then nothing more is
//! written. On the way the model checks each request: nothing that is not ours is touched, no lease is asked for that
//! etcd would not give. A failing run prints its seed: `SEED=n cargo test --test sim_etcd`.
#![cfg(feature = "etcd")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use beacond::clock::{Mono, Now};
use beacond::sinks::Want;
use beacond::sinks::diff::Goal;
use beacond::sinks::etcd::base64::{decode, encode};
use beacond::sinks::etcd::layout::{Card, Layout, Site, mark_text};
use beacond::sinks::etcd::machine::{Facts, Machine, Pace, State, Todo};
use beacond::url::Url;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(6);
const SKEW: Duration = Duration::from_secs(10);
const EPOCH: i64 = 1_780_646_570_000_000;
const FOREIGN: &str = "/beacond/default/web/notes";

#[test]
fn one_writer_converges() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 1);
        world.storm(150);
        world.calm();
        world.assert_converged();
    }
}

#[test]
fn three_writers_converge() {
    for seed in seeds(12) {
        let mut world = World::new(seed, 3);
        world.storm(150);
        world.calm();
        world.assert_converged();
    }
}

#[test]
fn nothing_is_written_in_steady_state_and_leases_are_kept_together() {
    let mut world = World::new(1, 2);
    world.etcd.hasty = true;
    world.senders = (1..=200).map(|n| Sender { up: true, ..Sender::new(n) }).collect();
    // As long as marks last that came with the first puts.
    world.run(60 * SECOND);
    world.assert_converged();
    let (revision, keeps) = (world.etcd.revision, world.etcd.keeps);
    world.run(60 * SECOND);
    assert_eq!(world.etcd.revision, revision);
    let keeps = world.etcd.keeps - keeps;
    // Two writers, a third of six seconds between two of each at least, a hundred in one, half of which are answered.
    assert!((4 * 60 / 6..=2 * 4 * 60 / 2).contains(&keeps), "{keeps} requests in 60 s for 400 leases");
}

#[test]
fn a_writer_that_dies_takes_nothing_away() {
    let mut world = World::new(2, 2);
    world.senders.iter_mut().for_each(|sender| sender.up = true);
    world.run(10 * SECOND);
    world.assert_converged();
    world.receivers.truncate(1);
    for _ in 0..300 {
        world.run(Duration::from_millis(100));
        assert_eq!(world.etcd.members(), world.senders.len());
    }
}

#[test]
fn the_unheard_are_gone_within_one_and_a_half_timeouts_and_never_before_one() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2);
        world.senders = vec![Sender { up: true, ..Sender::new(1) }];
        world.run(10 * SECOND + Duration::from_millis(seed * 137));
        world.senders[0].up = false;
        let silent = world.senders[0].sent;
        while world.etcd.members() > 0 {
            world.run(Duration::from_millis(20));
        }
        let took = world.now.since(silent);
        assert!(took >= TIMEOUT && took <= TIMEOUT * 3 / 2 + SECOND / 2, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_change_is_written_at_once() {
    let mut world = World::new(3, 1);
    world.run(3 * SECOND);
    world.senders[0] = Sender { up: true, weight: 7, ..Sender::new(1) };
    world.beat(0);
    let before = world.etcd.calls;
    world.run(Duration::from_millis(30));
    assert_eq!(world.etcd.members(), 1);
    // A look, two leases, the put, and a look at what came of it.
    assert!(world.etcd.calls - before <= 5, "{}", world.etcd.calls - before);
    world.senders[0].weight = 9;
    world.beat(0);
    world.run(Duration::from_millis(30));
    world.senders[0].up = false;
    world.goodbye(0);
    world.run(Duration::from_millis(30));
    assert_eq!(world.etcd.members(), 0, "a goodbye is passed on at once");
}

#[test]
fn a_thousand_members_are_filled_in_by_batches() {
    let mut world = World::new(4, 1);
    world.senders = (1..=1000).map(|n| Sender { up: true, ..Sender::new(n) }).collect();
    world.run(8 * SECOND);
    world.assert_converged();
    let puts = world.etcd.txns;
    assert!(puts < 1000 / 64 + 40, "{puts} transactions");
}

#[test]
fn a_goodbye_missed_by_one_writer_is_not_undone_by_it() {
    let mut world = World::new(5, 2);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }];
    world.run(5 * SECOND);
    world.senders[0].up = false;
    // Only the first hears it.
    let now = world.unix();
    world.receivers[0].leave(&Sender::new(1).url(), now);
    world.run(Duration::from_millis(100));
    assert_eq!(world.etcd.members(), 0);
    for _ in 0..50 {
        world.run(Duration::from_millis(100));
        assert_eq!(world.etcd.members(), 0, "its keepalive must not bring it back");
    }
    world.senders[0].up = true;
    world.run(2 * SECOND);
    assert_eq!(world.etcd.members(), 1, "something newer still");
    world.run(5 * SECOND);
    world.assert_converged();
}

#[test]
fn an_etcd_that_pretends_is_left_alone_for_a_minute_and_told_once() {
    let mut world = World::new(6, 1);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }];
    world.etcd.pretends = true;
    world.run(50 * SECOND);
    let txns = world.etcd.txns;
    assert!((2..=4).contains(&txns), "{txns}");
    assert_eq!(world.count("balancer add failed"), 1, "{:?}", world.log);
    assert_eq!(world.receivers[0].machine.view(&Sender::new(1).url()).0, State::Missing);
    world.etcd.pretends = false;
    world.run(60 * SECOND);
    world.assert_converged();
}

#[test]
fn an_etcd_that_is_away_is_asked_ever_less_often_and_told_of_once() {
    let mut world = World::new(7, 1);
    world.senders[0].up = true;
    world.run(5 * SECOND);
    (world.etcd.away, world.etcd.dead) = (true, true);
    let before = world.etcd.refused;
    world.run(60 * SECOND);
    let tries = world.etcd.refused - before;
    // In the end every two seconds: a third of a lease of six, which has its full time when etcd returns.
    assert!((25..=40).contains(&tries), "{tries} tries in a minute");
    assert_eq!(world.count("etcd is not there"), 1, "{:?}", world.log);
    (world.etcd.away, world.etcd.dead) = (false, false);
    world.etcd.restart(world.now);
    for _ in 0..100 {
        world.run(SECOND / 10);
        assert_eq!(world.etcd.members(), 1, "nobody is lost by the return");
    }
    assert_eq!(world.count("etcd is back"), 1, "{:?}", world.log);
    world.assert_converged();
}

#[test]
fn an_etcd_that_grants_leases_and_knows_none_is_not_stormed() {
    let mut world = World::new(9, 1);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }];
    world.etcd.forgetful = true;
    world.run(60 * SECOND);
    assert!(world.etcd.calls < 600, "{} calls in a minute", world.etcd.calls);
    assert_eq!(world.count("requested lease not found"), 1, "{:?}", world.log);
    world.etcd.forgetful = false;
    world.run(31 * SECOND);
    world.assert_converged();
    assert_eq!(world.count("etcd is back"), 1, "{:?}", world.log);
}

#[test]
fn an_etcd_that_has_a_lease_and_says_that_it_ran_out_is_not_stormed() {
    let mut world = World::new(10, 1);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }];
    world.etcd.confused = true;
    world.run(60 * SECOND);
    assert!(world.etcd.calls < 600, "{} calls in a minute", world.etcd.calls);
    assert_eq!(world.count("lease already exists"), 1, "{:?}", world.log);
    world.etcd.confused = false;
    world.run(31 * SECOND);
    world.assert_converged();
}

#[test]
fn a_store_that_was_restored_from_a_copy_and_is_past_what_we_know_is_read_anew() {
    let mut world = World::new(11, 1);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }, Sender { up: true, ..Sender::new(2) }];
    world.run(5 * SECOND);
    world.assert_converged();
    world.etcd.away = true;
    world.run(SECOND);
    // The copy lacks a member and has a key instead; all of it is older than what we read last.
    let range = site().range(Layout::Plain);
    let row = world.etcd.keys.remove(&format!("{range}{}", Sender::new(1).url())).unwrap();
    world.etcd.keys.insert(format!("{range}old"), row);
    world.etcd.revision += 5;
    world.etcd.away = false;
    world.run(10 * SECOND);
    world.etcd.keys.remove(&format!("{range}old"));
    world.assert_converged();
}

#[test]
fn a_mark_from_a_wrong_clock_keeps_nobody_out() {
    let mut world = World::new(8, 1);
    let url = Sender::new(1).url();
    let wrong = world.unix() + 3_600_000_000;
    world.etcd.put(&site().mark(&url), &mark_text(wrong), 0);
    world.senders = vec![Sender { up: true, ..Sender::new(1) }];
    world.run(2 * SECOND);
    assert_eq!(world.etcd.members(), 1);
}

// --- the world ---

fn site() -> Site {
    Site {
        prefix: "/beacond".to_owned(),
        cluster: "default".to_owned(),
        balancer: "web".to_owned(),
        layouts: vec![Layout::Plain, Layout::Traefik],
        service: "web".to_owned(),
        zone: String::new(),
    }
}

/// Status and body, or nothing.
type Reply = Option<(u16, Vec<u8>)>;

struct World {
    now: Mono,
    rng: Rng,
    seed: u64,
    etcd: Model,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    faulty: bool,
    log: Vec<String>,
}

#[derive(Clone)]
struct Sender {
    n: u16,
    up: bool,
    weight: u16,
    sent: Mono,
}

impl Sender {
    fn new(n: u16) -> Sender {
        Sender { n, up: false, weight: 1, sent: Mono::ZERO }
    }

    fn url(&self) -> Url {
        Url::parse(format!("http://10.0.{}.{}:80", self.n / 250, self.n % 250 + 1).as_bytes()).unwrap()
    }
}

/// A receiver's table, and the machine that it tells of it.
struct Receiver {
    machine: Machine,
    table: BTreeMap<String, (Goal, Facts)>,
    pending: Option<(Mono, Reply)>,
    wake: Mono,
}

impl Receiver {
    fn new() -> Receiver {
        let pace = Pace { every: 2 * SECOND, marks: Some(Duration::ZERO) };
        Receiver {
            machine: Machine::new(site(), pace),
            table: BTreeMap::new(),
            pending: None,
            wake: Mono::ZERO,
        }
    }

    fn announce(&mut self, sender: &Sender, ts: i64, now: Mono) {
        let card = Card { weight: sender.weight, ..Card::default() };
        let facts = Facts { card, timeout: TIMEOUT, last_seen: now, mark: Some(ts) };
        let goal = Goal::Up(sender.weight);
        let before = self.table.insert(sender.url().text().to_owned(), (goal, facts));
        if before.map(|(goal, _)| goal) != Some(goal) {
            self.machine.members_changed(now);
            self.wake = now;
        }
    }

    fn leave(&mut self, url: &Url, ts: i64) {
        if let Some((goal, facts)) = self.table.get_mut(url.text()) {
            (*goal, facts.mark) = (Goal::Drain, Some(ts));
            self.wake = Mono::ZERO;
        }
    }

    fn inform(&mut self, now: Mono) {
        for (goal, facts) in self.table.values_mut() {
            if matches!(goal, Goal::Up(_)) && now.since(facts.last_seen) > TIMEOUT {
                *goal = Goal::Out;
            }
        }
        let url = |text: &str| Url::parse(text.as_bytes()).unwrap();
        let goals = self.table.iter().map(|(text, (goal, _))| (url(text), *goal)).collect();
        let facts = self.table.iter().map(|(text, (_, facts))| (url(text), facts.clone())).collect();
        self.machine.inform(&Want::of(goals), facts, SKEW, now);
    }
}

impl World {
    fn new(seed: u64, receivers: usize) -> World {
        let mut etcd = Model::new();
        etcd.put(FOREIGN, "not ours", 0);
        World {
            now: Mono(1_000_000),
            rng: Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            seed,
            etcd,
            senders: (1..=8).map(Sender::new).collect(),
            receivers: (0..receivers).map(|_| Receiver::new()).collect(),
            faulty: false,
            log: Vec::new(),
        }
    }

    fn unix(&self) -> i64 {
        EPOCH + i64::try_from(self.now.0).unwrap()
    }

    fn storm(&mut self, steps: u32) {
        self.faulty = true;
        for _ in 0..steps {
            match self.rng.below(12) {
                0..=3 => {
                    let n = self.rng.index(self.senders.len());
                    self.senders[n].up = !self.senders[n].up;
                    if !self.senders[n].up && self.rng.below(2) == 0 {
                        self.goodbye(n);
                    }
                }
                4 => {
                    let n = self.rng.index(self.senders.len());
                    self.senders[n].weight = u16::try_from(self.rng.below(3) * 5).unwrap();
                }
                5 => self.etcd.restart(self.now),
                6 if self.rng.below(4) == 0 => {
                    self.etcd = Model { revision: 1, ..Model::new() };
                    self.etcd.put(FOREIGN, "not ours", 0);
                }
                7 => self.etcd.away = !self.etcd.away,
                8 => {
                    let n = self.rng.index(self.receivers.len());
                    self.receivers[n] = Receiver::new();
                }
                9 => self.etcd.pretends = self.rng.below(3) == 0,
                10 => {
                    // Somebody meddles with a key of ours.
                    let url = self.senders[self.rng.index(self.senders.len())].url();
                    let (key, _) = site().entries(&url, &Card::default()).swap_remove(0);
                    self.etcd.put(&key, "meddled", 0);
                }
                _ => {}
            }
            let pause = Duration::from_millis(self.rng.below(1500));
            self.run(pause);
        }
    }

    fn calm(&mut self) {
        self.faulty = false;
        (self.etcd.away, self.etcd.pretends) = (false, false);
        // What a meddler put without a lease under a member that is gone stays: it is nobody's.
        self.etcd.keys.retain(|_, row| row.value != "meddled");
        self.etcd.revision += 1;
        self.run(130 * SECOND);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            self.turn();
            self.now = Mono(self.now.0 + 1000);
        }
    }

    fn turn(&mut self) {
        if !self.etcd.dead {
            self.etcd.expire(self.now);
        }
        for n in 0..self.senders.len() {
            if self.senders[n].up && self.now.since(self.senders[n].sent) >= SECOND {
                self.beat(n);
            }
        }
        for n in 0..self.receivers.len() {
            self.serve(n);
        }
    }

    /// A datagram to every receiver.
    fn beat(&mut self, n: usize) {
        self.senders[n].sent = self.now;
        let (sender, ts) = (self.senders[n].clone(), self.unix());
        for receiver in &mut self.receivers {
            if !(self.faulty && self.rng.below(4) == 0) {
                receiver.announce(&sender, ts, self.now);
            }
        }
    }

    fn goodbye(&mut self, n: usize) {
        let (url, ts) = (self.senders[n].url(), self.unix() + 1);
        for receiver in &mut self.receivers {
            if !(self.faulty && self.rng.below(4) == 0) {
                receiver.leave(&url, ts);
                receiver.machine.members_changed(self.now);
            }
        }
    }

    fn serve(&mut self, n: usize) {
        let now = Now { mono: self.now, unix_us: self.unix() };
        let random = self.rng.next();
        let receiver = &mut self.receivers[n];
        match receiver.pending.take() {
            Some((at, reply)) if self.now < at => {
                receiver.pending = Some((at, reply));
                return;
            }
            Some((_, Some((status, body)))) => receiver.machine.answered(status, &body, now, random),
            Some((_, None)) => receiver.machine.failed("etcd is not there", now.mono, random),
            None if self.now < receiver.wake => return,
            None => {}
        }
        receiver.inform(self.now);
        let todo = receiver.machine.next(now);
        let news = receiver.machine.news().into_iter().map(|news| news.text);
        self.log.extend(news);
        receiver.machine.found();
        match todo {
            Todo::Wait(at) => receiver.wake = at,
            Todo::Send(call) => {
                let reply = self.exchange(call.path, &call.body);
                self.receivers[n].pending = Some(reply);
            }
        }
    }

    /// A request on its way, and when what comes of it.
    fn exchange(&mut self, path: &str, body: &str) -> (Mono, Reply) {
        let soon = self.now.after(Duration::from_millis(1));
        let lost = self.now.after(2 * SECOND);
        if self.etcd.away {
            self.etcd.refused += 1;
            return (soon, None);
        }
        let fate = if self.faulty { self.rng.below(20) } else { 99 };
        match fate {
            0 => (lost, None),
            1 => {
                self.etcd.handle(path, body, self.now);
                (lost, None)
            }
            2 => {
                self.etcd.handle(path, body, self.now);
                (soon, Some(self.etcd.handle(path, body, self.now)))
            }
            3 => {
                let late = self.now.after(Duration::from_millis(self.rng.below(1900)));
                (late, Some(self.etcd.handle(path, body, self.now)))
            }
            4 => {
                let (status, mut body) = self.etcd.handle(path, body, self.now);
                body.truncate(body.len() / 2);
                (soon, Some((status, body)))
            }
            5 => {
                let nonsense: [&[u8]; 4] = [b"{}", b"[]", b"{\"responses\":[{}]}", b"{\"result\":{}}"];
                (soon, Some((200, nonsense[self.rng.index(4)].to_vec())))
            }
            6 => (soon, Some((503, b"no leader".to_vec()))),
            7 => (soon, Some(Model::fault(404, 5, "etcdserver: requested lease not found"))),
            _ => (soon, Some(self.etcd.handle(path, body, self.now))),
        }
    }

    fn assert_converged(&self) {
        let mut wanted = BTreeMap::new();
        for sender in self.senders.iter().filter(|sender| sender.up) {
            let card = Card { weight: sender.weight, ..Card::default() };
            for (key, value) in site().entries(&sender.url(), &card) {
                wanted.extend(value.map(|value| (key, (value, site().lease(&sender.url())))));
            }
        }
        let ours = |key: &str| site().ranges().any(|range| key.starts_with(&range)) && key != FOREIGN;
        let there = self.etcd.keys.iter().filter(|(key, _)| ours(key));
        let there: BTreeMap<_, _> =
            there.map(|(k, row)| (k.clone(), (row.value.clone(), row.lease))).collect();
        assert_eq!(there, wanted, "seed {}; the log: {:#?}", self.seed, self.log);
        assert_eq!(self.etcd.keys[FOREIGN].value, "not ours");
        for receiver in &self.receivers {
            for sender in self.senders.iter().filter(|sender| sender.up) {
                assert_eq!(receiver.machine.view(&sender.url()), (State::There, None), "seed {}", self.seed);
            }
        }
    }

    fn count(&self, fragment: &str) -> usize {
        self.log.iter().filter(|line| line.contains(fragment)).count()
    }
}

// --- the model of etcd ---

struct Model {
    revision: i64,
    keys: BTreeMap<String, Row>,
    /// Seconds, and until when.
    leases: BTreeMap<i64, (u64, Mono)>,
    away: bool,
    /// It does not run, so no lease does.
    dead: bool,
    /// It says that it writes, and does not.
    pretends: bool,
    /// It answers for a part of the leases that are to be kept, and knows nothing of the others.
    hasty: bool,
    /// It grants leases and then knows none of them.
    forgetful: bool,
    /// It has every lease when one is to be granted, and none when it is to be kept.
    confused: bool,
    refused: u32,
    calls: u32,
    txns: u32,
    keeps: u32,
}

#[derive(Clone)]
struct Row {
    value: String,
    lease: i64,
    modified: i64,
}

impl Model {
    fn new() -> Model {
        Model {
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            away: false,
            dead: false,
            pretends: false,
            hasty: false,
            forgetful: false,
            confused: false,
            refused: 0,
            calls: 0,
            txns: 0,
            keeps: 0,
        }
    }

    /// How many members are there, by the plain layout.
    fn members(&self) -> usize {
        let range = site().range(Layout::Plain);
        self.keys.keys().filter(|key| key.starts_with(&range) && *key != FOREIGN).count()
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) {
        self.revision += 1;
        self.keys.insert(key.to_owned(), Row { value: value.to_owned(), lease, modified: self.revision });
    }

    fn restart(&mut self, now: Mono) {
        self.leases.values_mut().for_each(|(ttl, until)| *until = now.after(Duration::from_secs(*ttl)));
    }

    fn expire(&mut self, now: Mono) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, (_, until))| *until <= now).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|lease| self.end(lease));
    }

    fn end(&mut self, lease: i64) {
        self.leases.remove(&lease);
        let before = self.keys.len();
        self.keys.retain(|_, row| row.lease != lease);
        self.revision += i64::from(self.keys.len() < before);
    }

    fn fault(status: u16, code: u32, text: &str) -> (u16, Vec<u8>) {
        (status, json!({"error": text, "message": text, "code": code}).to_string().into_bytes())
    }

    fn handle(&mut self, path: &str, body: &str, now: Mono) -> (u16, Vec<u8>) {
        self.calls += 1;
        if path == "/v3/lease/keepalive" {
            return (200, self.keep(body, now));
        }
        let body: Value = serde_json::from_str(body).expect("a request is JSON");
        let lease = whole(&body["ID"]);
        match path {
            "/v3/lease/grant" => {
                let ttl = u64::try_from(whole(&body["TTL"])).unwrap();
                assert!(lease > 0 && (2..=9_000_000).contains(&ttl), "{lease} {ttl}");
                if self.confused || self.leases.contains_key(&lease) {
                    return Model::fault(412, 9, "etcdserver: lease already exists");
                }
                self.leases.insert(lease, (ttl, now.after(Duration::from_secs(ttl))));
                self.fine(json!({"ID": lease.to_string(), "TTL": ttl.to_string()}))
            }
            "/v3/lease/revoke" if !self.leases.contains_key(&lease) => {
                Model::fault(404, 5, "etcdserver: requested lease not found")
            }
            "/v3/lease/revoke" => {
                self.end(lease);
                self.fine(json!({}))
            }
            "/v3/kv/txn" => {
                let leases = self.leases_of(&body);
                if self.forgetful && !leases.is_empty()
                    || !leases.iter().all(|lease| self.leases.contains_key(lease))
                {
                    return Model::fault(404, 5, "etcdserver: requested lease not found");
                }
                let before = self.revision;
                let answer = self.txn(&body, 0, before + 1);
                self.txns += u32::from(body.to_string().contains("requestPut"));
                self.fine(answer)
            }
            _ => panic!("unknown path {path}"),
        }
    }

    fn fine(&self, mut answer: Value) -> (u16, Vec<u8>) {
        answer["header"] = json!({"cluster_id": "7", "revision": self.revision.to_string()});
        (200, answer.to_string().into_bytes())
    }

    fn keep(&mut self, body: &str, now: Mono) -> Vec<u8> {
        self.keeps += 1;
        // As the gateway does that begins to answer before it has read all.
        let cut = if self.hasty { 3000 } else { usize::MAX };
        let mut lines = String::new();
        for line in body.lines() {
            let lease = whole(&serde_json::from_str::<Value>(line).unwrap()["ID"]);
            let mut result = json!({"ID": lease.to_string()});
            if let Some((ttl, until)) = self.leases.get_mut(&lease).filter(|_| !self.confused) {
                *until = now.after(Duration::from_secs(*ttl));
                result["TTL"] = ttl.to_string().into();
            }
            if lines.len() > cut {
                break;
            }
            lines += &format!("{}\n", json!({"result": result}));
        }
        lines.into_bytes()
    }

    /// The leases of all puts that would be done.
    fn leases_of(&self, txn: &Value) -> Vec<i64> {
        let branch = if self.holds(txn) { "success" } else { "failure" };
        let mut leases = Vec::new();
        for op in txn[branch].as_array().into_iter().flatten() {
            if !op["requestTxn"].is_null() {
                leases.extend(self.leases_of(&op["requestTxn"]));
            } else if !op["requestPut"].is_null() {
                leases.push(whole(&op["requestPut"]["lease"]));
            }
        }
        leases
    }

    fn holds(&self, txn: &Value) -> bool {
        txn["compare"].as_array().into_iter().flatten().all(|compare| {
            let row = self.keys.get(&text(&compare["key"]));
            let value = || text(&compare["value"]);
            match (compare["target"].as_str().unwrap(), compare["result"].as_str().unwrap()) {
                ("CREATE", "EQUAL") => row.is_none(),
                ("VALUE", "LESS") => row.is_some_and(|row| row.value < value()),
                ("VALUE", "GREATER") => row.is_some_and(|row| row.value > value()),
                other => panic!("unknown comparison {other:?}"),
            }
        })
    }

    fn txn(&mut self, txn: &Value, depth: u32, revision: i64) -> Value {
        assert!(depth < 5);
        let holds = self.holds(txn);
        let ops = txn[if holds { "success" } else { "failure" }].as_array().cloned().unwrap_or_default();
        assert!(ops.len() <= 64, "etcd takes 128 in all");
        let answers: Vec<Value> = ops.iter().map(|op| self.op(op, depth, revision)).collect();
        json!({"succeeded": holds, "responses": answers})
    }

    fn op(&mut self, op: &Value, depth: u32, revision: i64) -> Value {
        let (name, of) = op.as_object().unwrap().iter().next().unwrap();
        let key = text(&of["key"]);
        match name.as_str() {
            "requestTxn" => json!({"response_txn": self.txn(of, depth + 1, revision)}),
            "requestRange" => json!({"response_range": self.range(&key, of)}),
            "requestPut" => {
                assert!(is_ours(&key), "wrote {key}");
                if !self.pretends {
                    let (value, lease) = (text(&of["value"]), whole(&of["lease"]));
                    self.revision = revision;
                    self.keys.insert(key, Row { value, lease, modified: revision });
                }
                json!({"response_put": {}})
            }
            "requestDeleteRange" => {
                assert!(is_ours(&key) && of["range_end"].is_null(), "deleted {key}");
                if self.keys.remove(&key).is_some() {
                    self.revision = revision;
                }
                json!({"response_delete_range": {}})
            }
            other => panic!("unknown operation {other}"),
        }
    }

    fn range(&self, from: &str, of: &Value) -> Value {
        let (end, since) = (text(&of["range_end"]), whole(&of["min_mod_revision"]));
        let all = || self.keys.range(from.to_owned()..end.clone());
        let row = |(key, row): (&String, &Row)| json!({"key": encode(key.as_bytes()), "value": encode(row.value.as_bytes()), "lease": row.lease.to_string()});
        let changed: Vec<Value> = all().filter(|(_, row)| row.modified >= since).map(row).collect();
        json!({"kvs": changed, "count": all().count().to_string()})
    }
}

/// A key that a beacond of this site may write: a member's or a mark's.
fn is_ours(key: &str) -> bool {
    let site = site();
    let plain = site.range(Layout::Plain);
    let member = [plain.as_str(), &site.marks()].iter().any(|range| {
        key.strip_prefix(range)
            .is_some_and(|url| Url::parse(url.as_bytes()).is_ok_and(|parsed| parsed.text() == url))
    });
    member || key.starts_with(&site.range(Layout::Traefik))
}

fn text(base64: &Value) -> String {
    String::from_utf8(decode(base64.as_str().unwrap_or_default()).unwrap()).unwrap()
}

fn whole(value: &Value) -> i64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len.try_into().unwrap())).unwrap()
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (10..10 + std::env::var("SEEDS").map_or(count, |many| many.parse().unwrap())).collect(),
    }
}
