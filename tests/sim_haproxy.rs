//! The HAProxy machine against a model of HAProxy 2.6 on virtual time: one that loses connections, cuts and
//! invents replies, claims what it did not do, restarts, and is edited by an operator and by a second
//! beacond.
//!
//! Whatever happened, once it stops happening the backend becomes what the table wants, and then nothing more
//! is written. On the way the model checks each command: nothing that is not ours, nothing under the
//! operator's hand, nothing deleted in haste, nobody in rotation unchecked. A failing run prints its seed:
//! `SEED=n cargo test --test sim_haproxy`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use beacond::clock::Mono;
use beacond::sinks::Want;
use beacond::sinks::diff::Goal;
use beacond::sinks::haproxy::commands::Site;
use beacond::sinks::haproxy::machine::{Machine, Pace, Todo};
use beacond::sinks::haproxy::notes::State;
use beacond::sinks::haproxy::replies::{Process, Row, Snapshot, render};
use beacond::sorted::Sorted;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const CHECKED: &str = "check inter 2s rise 1 fall 2 pool-max-conn 50 pool-purge-delay 5s";
const UNCHECKED: &str = "pool-max-conn 50 pool-purge-delay 5s";

#[test]
fn one_beacond_converges() {
    for seed in seeds(40) {
        let options = if seed % 3 == 0 { UNCHECKED } else { CHECKED };
        let mut world = World::new(seed, 1, options);
        world.storm(200);
        world.calm(300);
        world.assert_converged();
    }
}

#[test]
fn two_beaconds_on_one_backend_converge() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 2, CHECKED);
        world.storm(200);
        world.calm(300);
        world.assert_converged();
    }
}

#[test]
fn two_that_disagree_for_ever_do_not_storm() {
    for seed in seeds(20) {
        let mut world = World::new(seed, 2, UNCHECKED);
        let addr = address(1);
        for (machine, goal) in [(0, Goal::Up(1)), (1, Goal::Out)] {
            world.wants[machine].servers = Sorted::from_iter([(addr, goal)]);
        }
        world.run(600 * SECOND);
        let writes = world.haproxy.writes;
        assert!((2..=200).contains(&writes), "seed {seed}: {writes} writes in 600 s");
    }
}

#[test]
fn a_change_is_written_at_once_and_in_two_connections() {
    let mut world = World::new(1, 1, UNCHECKED);
    world.run(12 * SECOND);
    let before = world.now;
    world.wants[0].servers.insert(address(1), Goal::Up(7));
    world.machines[0].members_changed(world.now);
    world.run(Duration::from_millis(5));
    let row = &world.haproxy.servers["b-10.0.0.1:80"];
    assert_eq!((row.admin, row.weight), (0, 7));
    assert!(row.since.since(before) <= Duration::from_millis(5));
}

#[test]
fn a_refill_after_a_reload_is_quick_and_does_not_wait_for_checks() {
    let mut world = World::new(2, 1, CHECKED);
    for n in 1..=9 {
        world.wants[0].servers.insert(address(n), Goal::Up(u16::from(n)));
    }
    world.machines[0].members_changed(world.now);
    world.run(20 * SECOND);
    world.assert_converged();
    world.haproxy.restart();
    world.run(Duration::from_millis(1_050));
    world.assert_converged();
    assert!(world.log.iter().any(|line| line.contains("reloaded or restarted")), "{:?}", world.log);
}

#[test]
fn a_reload_during_a_check_or_soon_after_another_reload_is_refilled_as_quickly() {
    let mut world = World::new(9, 1, CHECKED);
    world.set(0, address(1), Some(Goal::Up(1)));
    world.run(20 * SECOND);
    world.assert_converged();
    for pause in [5_000, 5_350, 5_700, 0, 0, 300, 6_050, 6_400] {
        world.run(Duration::from_millis(pause));
        world.haproxy.restart();
        world.run(Duration::from_millis(1_050));
        world.assert_converged();
    }
    // It must not be taken for checked when it comes back from an eviction.
    world.set(0, address(1), Some(Goal::Out));
    world.run(60 * SECOND);
    assert!(!world.haproxy.servers.contains_key("b-10.0.0.1:80"));
    world.set(0, address(1), Some(Goal::Up(1)));
    world.run(Duration::from_millis(50));
    assert_eq!(world.machines[0].view(address(1)).0, State::Checking);
}

#[test]
fn a_returning_member_waits_for_a_check_of_today() {
    let mut world = World::new(3, 1, CHECKED);
    let addr = address(1);
    world.set(0, addr, Some(Goal::Up(1)));
    world.run(10 * SECOND);
    world.set(0, addr, Some(Goal::Out));
    world.run(SECOND);
    world.haproxy.sick.insert(addr);
    world.set(0, addr, Some(Goal::Up(1)));
    world.run(20 * SECOND);
    let row = &world.haproxy.servers["b-10.0.0.1:80"];
    assert!(row.admin & DRAIN != 0, "the pass of yesterday must not count: {row:?}");
    assert_eq!(world.machines[0].view(addr).0, State::Checking);
    world.haproxy.sick.clear();
    world.run(5 * SECOND);
    world.assert_converged();
}

#[test]
fn a_goodbye_drains_while_something_runs_but_not_beyond_the_grace() {
    let mut world = World::new(4, 1, UNCHECKED);
    let addr = address(1);
    world.set(0, addr, Some(Goal::Up(1)));
    world.run(SECOND);
    world.haproxy.servers.get_mut("b-10.0.0.1:80").unwrap().used = 1;
    world.haproxy.frozen_use = true;
    world.set(0, addr, Some(Goal::Drain));
    world.run(25 * SECOND);
    assert_eq!(world.haproxy.servers["b-10.0.0.1:80"].admin, DRAIN);
    assert_eq!(world.machines[0].view(addr).0, State::Draining);
    world.run(10 * SECOND);
    assert_eq!(world.haproxy.servers["b-10.0.0.1:80"].admin, MAINT, "the grace is over");
    world.run(100 * SECOND);
    assert!(world.haproxy.servers.contains_key("b-10.0.0.1:80"), "not deleted under a running connection");
    world.haproxy.frozen_use = false;
    world.run(60 * SECOND);
    assert!(!world.haproxy.servers.contains_key("b-10.0.0.1:80"));
}

#[test]
fn a_restart_of_beacond_tells_its_own_eviction_from_the_operators_maint() {
    let mut world = World::new(5, 1, UNCHECKED);
    for n in [1, 2] {
        world.set(0, address(n), Some(Goal::Up(1)));
    }
    world.run(SECOND);
    world.set(0, address(1), Some(Goal::Out));
    world.run(SECOND);
    world.haproxy.operator("b-10.0.0.2:80", |row| row.admin = MAINT);
    world.restart_beacond(0);
    world.set(0, address(1), Some(Goal::Up(1)));
    world.run(30 * SECOND);
    assert_eq!(world.haproxy.servers["b-10.0.0.1:80"].admin, 0, "ours: it returns");
    assert_eq!(world.haproxy.servers["b-10.0.0.2:80"].admin, MAINT, "the operator's: it stays");
    assert_eq!(world.machines[0].view(address(2)).0, State::Operator);
}

#[test]
fn failures_are_told_once_and_healed() {
    let mut world = World::new(6, 1, CHECKED);
    for n in 1..=5 {
        world.set(0, address(n), Some(Goal::Up(1)));
    }
    world.haproxy.level = Level::Operator;
    world.run(120 * SECOND);
    assert_eq!(world.count("permission denied"), 1, "{:?}", world.log);
    assert_eq!(world.count("failed"), 0, "no member is at fault: {:?}", world.log);
    assert!(world.machines[0].view(address(5)).1.unwrap().contains("permission denied"));
    world.haproxy.level = Level::Admin;
    world.run(60 * SECOND);
    world.assert_converged();
    assert_eq!(world.count("HAProxy is back"), 1, "{:?}", world.log);

    world.haproxy.away = true;
    world.run(60 * SECOND);
    let tries = world.haproxy.refused;
    assert!((3..=20).contains(&tries), "{tries} tries in a minute");
    assert_eq!(world.count("connect: refused"), 1, "{:?}", world.log);
    world.haproxy.away = false;
    world.run(31 * SECOND);
    world.assert_converged();

    world.haproxy.backend = false;
    world.run(10 * SECOND);
    assert_eq!(world.count("no such backend in HAProxy: web"), 1, "{:?}", world.log);
}

#[test]
fn a_refused_addition_waits_a_minute_and_is_told_once() {
    let mut world = World::new(7, 1, CHECKED);
    world.haproxy.refuse_add = Some("Backend must use a dynamic load balancing to support dynamic servers.");
    for n in 1..=5 {
        world.set(0, address(n), Some(Goal::Up(1)));
    }
    world.run(50 * SECOND);
    assert_eq!(world.haproxy.writes, 5);
    assert_eq!(world.count("balancer add failed: Backend must use a dynamic"), 1, "{:?}", world.log);
    let (state, error) = world.machines[0].view(address(3));
    assert_eq!(state, State::Refused);
    assert!(error.unwrap().starts_with("balancer add failed: Backend must"), "{error:?}");
    world.run(100 * SECOND);
    assert_eq!(world.haproxy.writes, 15);
    assert_eq!(world.count("balancer add failed"), 1, "{:?}", world.log);
    world.haproxy.refuse_add = None;
    world.run(60 * SECOND);
    world.assert_converged();
}

#[test]
fn nothing_unknown_is_touched_before_the_table_has_settled() {
    let mut world = World::new(8, 1, UNCHECKED);
    world.set(0, address(1), Some(Goal::Up(1)));
    world.run(SECOND);
    world.restart_beacond(0);
    world.wants[0] = Want::default();
    let writes = world.haproxy.writes;
    world.run(300 * SECOND);
    assert_eq!(world.haproxy.writes, writes);
    world.wants[0].settled = true;
    world.run(100 * SECOND);
    assert!(!world.haproxy.servers.contains_key("b-10.0.0.1:80"));
}

#[test]
fn a_reload_between_two_lines_does_not_hold_back_what_was_not_sent() {
    let mut world = World::new(10, 1, CHECKED);
    world.run(12 * SECOND);
    for n in 1..=7 {
        world.set(0, address(n), Some(Goal::Up(1)));
    }
    while world.haproxy.writes == 0 {
        world.now = world.step(0);
    }
    world.reload_beacond(0);
    world.run(Duration::from_millis(50));
    assert_eq!(world.haproxy.ours(), 7);
    assert_eq!(world.count("failed"), 0, "{:?}", world.log);
}

#[test]
fn a_refill_of_thousands_reads_all_of_it_few_times() {
    let reads = |servers: u16| {
        let mut world = World::new(11, 1, UNCHECKED);
        world.run(12 * SECOND);
        let before = world.haproxy.reads;
        for [high, low] in (0..servers).map(u16::to_be_bytes) {
            world.wants[0].servers.insert(SocketAddr::from(([10, 1, high, low], 80)), Goal::Up(1));
        }
        world.machines[0].members_changed(world.now);
        world.run(4 * SECOND);
        assert_eq!(world.haproxy.ours(), usize::from(servers));
        world.haproxy.reads - before
    };
    let (hundred, thousand) = (reads(100), reads(1_000));
    assert!(thousand <= 30 && thousand < 4 * hundred, "{hundred} and {thousand} reads");
}

// --- the world ---

/// What a connection brought, or why it failed.
type Reply = Result<Vec<u8>, &'static str>;

struct World {
    now: Mono,
    rng: Rng,
    seed: u64,
    options: &'static str,
    haproxy: Model,
    machines: Vec<Machine>,
    wants: Vec<Want<SocketAddr>>,
    /// A reply on its way to each machine.
    pending: Vec<Option<(Mono, Reply)>>,
    stormy: bool,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, machines: usize, options: &'static str) -> World {
        println!("seed {seed}");
        World {
            now: Mono(1),
            rng: Rng(seed),
            seed,
            options,
            haproxy: Model::new(seed),
            machines: (0..machines).map(|_| machine(options)).collect(),
            wants: vec![Want { settled: true, ..Want::default() }; machines],
            pending: vec![None; machines],
            stormy: false,
            log: Vec::new(),
        }
    }

    fn set(&mut self, machine: usize, addr: SocketAddr, goal: Option<Goal>) {
        match goal {
            Some(goal) => self.wants[machine].servers.insert(addr, goal),
            None => drop(self.wants[machine].servers.remove(&addr)),
        };
        self.machines[machine].members_changed(self.now);
    }

    fn restart_beacond(&mut self, machine: usize) {
        self.machines[machine] = crate::machine(self.options);
        self.pending[machine] = None;
    }

    /// The section was changed: whatever was under way is lost.
    fn reload_beacond(&mut self, machine: usize) {
        let every = Duration::from_secs(4 + self.rng.below(3));
        self.machines[machine].reconfigure(site(self.options), Pace { every, grace: 30 * SECOND });
        self.pending[machine] = None;
    }

    fn count(&self, text: &str) -> usize {
        self.log.iter().filter(|line| line.contains(text)).count()
    }

    fn storm(&mut self, seconds: u64) {
        self.stormy = true;
        for _ in 0..seconds {
            self.trouble();
            let pause = Duration::from_micros(1 + self.rng.below(2_000_000));
            self.run(pause);
        }
        self.stormy = false;
    }

    /// Nothing happens any more, and every machine wants the same.
    fn calm(&mut self, seconds: u64) {
        self.haproxy.soothe();
        self.wants.iter_mut().for_each(|want| want.settled = true);
        let want = self.wants[0].clone();
        for machine in 0..self.machines.len() {
            self.wants[machine] = want.clone();
            self.machines[machine].members_changed(self.now);
        }
        self.run(Duration::from_secs(seconds));
    }

    fn trouble(&mut self) {
        let addr = address(1 + u8::try_from(self.rng.below(9)).unwrap());
        let name = site(self.options).name(addr);
        match self.rng.below(17) {
            16 => (0..self.machines.len()).for_each(|machine| self.reload_beacond(machine)),
            0..=7 => {
                let weight = u16::try_from(self.rng.below(4)).unwrap();
                let goal = match self.rng.below(6) {
                    0..=2 => Some(Goal::Up(weight)),
                    3 => Some(Goal::Drain),
                    4 => Some(Goal::Out),
                    _ => None,
                };
                (0..self.machines.len()).for_each(|machine| self.set(machine, addr, goal));
            }
            8 => self.haproxy.restart(),
            9 => {
                let machine = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap();
                self.restart_beacond(machine);
                self.wants[machine].settled = self.rng.below(2) == 0;
            }
            10 => self.haproxy.operator(&name, |row| row.admin = MAINT),
            11 => self.haproxy.operator(&name, |row| row.admin = 0),
            12 => self.haproxy.operator(&name, |row| row.weight = 9),
            13 => {
                if !self.haproxy.sick.remove(&addr) {
                    self.haproxy.sick.insert(addr);
                }
            }
            14 => self.haproxy.away = !self.haproxy.away,
            _ => {
                self.haproxy.level = if self.rng.below(2) == 0 { Level::Admin } else { Level::Operator };
                self.haproxy.backend = self.rng.below(4) != 0;
            }
        }
    }

    /// Lets virtual time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < 200_000, "seed {}: it spins\n{:#?}", self.seed, self.log);
            let mut next = end;
            for machine in 0..self.machines.len() {
                next = next.min(self.step(machine));
            }
            if next >= end {
                break;
            }
            self.now = self.now.max(next);
        }
        self.now = end;
        self.haproxy.advance(end);
    }

    /// One machine's turn; when it wants the next.
    fn step(&mut self, machine: usize) -> Mono {
        self.haproxy.advance(self.now);
        if let Some((at, reply)) = &self.pending[machine] {
            if self.now < *at {
                return *at;
            }
            let random = self.rng.next();
            match reply {
                Ok(reply) => self.machines[machine].answered(reply, self.now, random),
                Err(why) => self.machines[machine].failed(why, self.now, random),
            }
            self.pending[machine] = None;
        }
        let todo = self.machines[machine].next(&self.wants[machine], self.now);
        for news in self.machines[machine].news() {
            self.log.push(format!("{:.3} [{machine}] {}", self.now.0 as f64 / 1e6, news.text));
        }
        match todo {
            Todo::Wait(at) => at,
            Todo::Send(line) => {
                let at = self.now.after(Duration::from_micros(100 + self.rng.below(900)));
                let reply = self.exchange(&line);
                self.pending[machine] = Some((at, reply));
                at
            }
        }
    }

    /// One connection, with what can happen to it.
    fn exchange(&mut self, line: &str) -> Reply {
        if self.haproxy.away {
            self.haproxy.refused += 1;
            return Err("connect: refused");
        }
        let fate = if self.stormy { self.rng.below(40) } else { u64::MAX };
        if fate == 0 {
            return Err("no answer within 2 s");
        }
        if fate == 1 && !line.starts_with("show") {
            return Ok(b"\n\n".to_vec());
        }
        let mut reply = self.haproxy.cli(line).into_bytes();
        match fate {
            2 => return Err("connection reset"),
            3 => reply.truncate(usize::try_from(self.rng.below(reply.len() as u64 + 1)).unwrap()),
            4 => reply = (0..self.rng.below(300)).map(|_| self.rng.next().to_le_bytes()[0]).collect(),
            _ => {}
        }
        Ok(reply)
    }

    fn assert_converged(&mut self) {
        let writes = self.haproxy.writes;
        self.run(if self.seed < 10 { Duration::from_millis(200) } else { 60 * SECOND });
        let context = || {
            format!("seed {}\n{:#?}\n{:#?}\n{:#?}", self.seed, self.log, self.haproxy.servers, self.wants[0])
        };
        assert_eq!(self.haproxy.writes, writes, "still writing: {}", context());
        for (addr, goal) in self.wants[0].servers.iter() {
            let row = self.haproxy.servers.get(&site(self.options).name(*addr));
            let view = self.machines[0].view(*addr);
            match (goal, row) {
                (_, Some(row)) if row.foreign => assert_eq!(view.0, State::Foreign, "{}", context()),
                (_, Some(row)) if row.held_by_operator() => {
                    assert_eq!(view.0, State::Operator, "{}", context());
                }
                (Goal::Up(weight), Some(row)) => {
                    let gated = row.admin == DRAIN && self.haproxy.sick.contains(addr);
                    assert!(gated || row.admin == 0 && row.weight == *weight, "{addr} {row:?} {}", context());
                }
                (Goal::Up(_), None) => panic!("{addr} is missing: {}", context()),
                (_, Some(row)) => {
                    assert!(row.admin == MAINT && self.machines.len() > 1, "{addr} {row:?} {}", context());
                }
                (_, None) => {}
            }
        }
        for row in self.haproxy.servers.values() {
            let known = self.wants[0].servers.contains_key(&row.addr);
            let may_stay = known || row.foreign || row.held_by_operator() || self.machines.len() > 1;
            assert!(may_stay, "nobody wants {row:?}: {}", context());
        }
    }
}

fn site(options: &str) -> Site {
    Site { backend: "web".to_owned(), prefix: "b-".to_owned(), options: options.to_owned() }
}

fn machine(options: &str) -> Machine {
    Machine::new(site(options), Pace { every: 5 * SECOND, grace: 30 * SECOND })
}

fn address(n: u8) -> SocketAddr {
    let text = if n == 9 { "[2001:db8::9]:80".to_owned() } else { format!("10.0.0.{n}:80") };
    text.parse().unwrap()
}

// --- the model ---

const MAINT: u32 = 1;
const DRAIN: u32 = 8;
const RISE: u32 = 1;
const FULL_HEALTH: u32 = 2;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Level {
    Admin,
    Operator,
}

/// A server in the model.
#[derive(Clone, Debug)]
struct Server {
    addr: SocketAddr,
    id: u32,
    admin: u32,
    weight: u16,
    checks: bool,
    checking: bool,
    result: u8,
    health: u32,
    next_check: Mono,
    /// A check has passed since it last left maint.
    fresh: bool,
    used: u32,
    /// In maint and without connections since.
    quiet: Mono,
    /// Last moved between rotation, drain and maint.
    since: Mono,
    foreign: bool,
    /// A machine has read it since somebody else last changed it.
    read: bool,
}

impl Server {
    fn held_by_operator(&self) -> bool {
        self.admin != 0 && self.weight != 0
    }
}

/// HAProxy 2.6 as far as the runtime API shows it, and the rules that a driver must keep.
struct Model {
    now: Mono,
    rng: Rng,
    pid: u32,
    level: Level,
    backend: bool,
    away: bool,
    refuse_add: Option<&'static str>,
    frozen_use: bool,
    /// Half the time a check is under way, and no result is shown.
    slow_checks: bool,
    servers: BTreeMap<String, Server>,
    /// Members whose checks fail.
    sick: BTreeSet<SocketAddr>,
    /// In rotation, or fit for it, when the process ended: may come back unchecked.
    served: BTreeSet<SocketAddr>,
    writes: u32,
    /// Full reads.
    reads: u32,
    refused: u32,
}

impl Model {
    fn new(seed: u64) -> Model {
        let mut model = Model {
            now: Mono(1),
            rng: Rng(seed ^ 0x5eed),
            pid: 100,
            level: Level::Admin,
            backend: true,
            away: false,
            refuse_add: None,
            frozen_use: false,
            slow_checks: seed % 2 == 1,
            servers: BTreeMap::new(),
            sick: BTreeSet::new(),
            served: BTreeSet::new(),
            writes: 0,
            reads: 0,
            refused: 0,
        };
        model.load();
        model
    }

    /// What the configuration file holds: one server with a name of its own, one with a name like ours.
    fn load(&mut self) {
        for (name, addr, id) in [("fixed1", "10.9.9.9:80", 1), ("b-10.0.0.8:80", "10.9.9.8:80", 2)] {
            let server = Server {
                addr: addr.parse().unwrap(),
                id,
                admin: 0,
                weight: 1,
                checks: false,
                checking: false,
                result: 0,
                health: 1,
                next_check: Mono::NEVER,
                fresh: false,
                used: 0,
                quiet: Mono::NEVER,
                since: self.now,
                foreign: true,
                read: false,
            };
            self.servers.insert(name.to_owned(), server);
        }
    }

    fn restart(&mut self) {
        self.pid += 1;
        if std::env::var("SEED").is_ok() {
            println!("{:.3} restart", self.now.0 as f64 / 1e6);
        }
        self.served
            .extend(self.servers.values().filter(|row| row.fresh || row.admin == 0).map(|row| row.addr));
        self.servers.clear();
        self.load();
    }

    fn soothe(&mut self) {
        (self.away, self.level, self.backend) = (false, Level::Admin, true);
    }

    fn operator(&mut self, name: &str, edit: impl Fn(&mut Server)) {
        if let Some(row) = self.servers.get_mut(name).filter(|row| !row.foreign) {
            // What nobody has marked yet cannot be told from ours: weight 0 is our mark.
            if row.weight != 0 {
                edit(row);
                row.read = false;
            }
        }
    }

    fn advance(&mut self, now: Mono) {
        self.now = now;
        for row in self.servers.values_mut().filter(|row| !row.foreign) {
            while row.checking && row.admin & MAINT == 0 && row.next_check <= now {
                row.next_check = row.next_check.after(2 * SECOND);
                if self.sick.contains(&row.addr) {
                    row.result = 2;
                    row.health = row.health.saturating_sub(1);
                } else {
                    (row.result, row.health, row.fresh) = (3, FULL_HEALTH, true);
                }
            }
            if !self.frozen_use {
                row.used = if row.admin & MAINT == 0 && self.rng.below(4) == 0 { 1 } else { 0 };
            }
            let quiet = row.admin & MAINT != 0 && row.used == 0;
            row.quiet = if quiet { row.quiet.min(now) } else { Mono::NEVER };
        }
    }

    fn ours(&self) -> usize {
        self.servers.values().filter(|row| !row.foreign).count()
    }

    fn cli(&mut self, line: &str) -> String {
        if line.starts_with("show") {
            return self.show(line);
        }
        self.writes += 1;
        if std::env::var("SEED").is_ok() {
            println!("{:.3} {line}", self.now.0 as f64 / 1e6);
        }
        line.split(';').map(|command| self.change(command)).collect()
    }

    fn show(&mut self, line: &str) -> String {
        if line == "show info" {
            return format!("Pid: {}\nStopping: 0\nStart_time_sec: 7\n\n", self.pid);
        }
        assert_eq!(line, "show info;show servers state web;show servers conn web");
        self.reads += 1;
        let rows = self.servers.iter_mut().map(|(name, row)| {
            row.read = true;
            Row {
                name: name.clone(),
                id: row.id,
                addr: Some(row.addr.ip()),
                port: row.addr.port(),
                op: if row.admin & MAINT != 0 || row.checking && row.health < RISE { 0 } else { 2 },
                admin: row.admin,
                weight: row.weight,
                unchanged: u32::try_from(self.now.since(row.since).as_secs()).unwrap(),
                check_result: if self.slow_checks && row.checking && row.next_check.since(self.now) < SECOND {
                    0 // under way
                } else {
                    row.result
                },
                check_health: if row.admin & MAINT != 0 { 0 } else { row.health },
                check_state: if row.checks { 2 } else { 0 } | if row.checking { 4 } else { 0 },
                conns: Some((row.used, 0)),
            }
        });
        let snapshot = Snapshot {
            process: Process { pid: self.pid, started: 7 },
            stopping: false,
            version: (2, 6),
            rows: rows.collect(),
        };
        let text = render(&snapshot, "web");
        if self.backend {
            return text;
        }
        let info = text.split("\n\n").next().unwrap();
        format!("{info}\n\nCan't find backend.\n\nCan't find backend.\n\n")
    }

    fn change(&mut self, command: &str) -> String {
        if self.level == Level::Operator {
            return "Permission denied\n\n".to_owned();
        }
        let words: Vec<&str> = command.split(' ').collect();
        let Some((backend, name)) = words.iter().find_map(|word| word.split_once('/')) else {
            panic!("no server in {command}")
        };
        assert_eq!(backend, "web");
        if !self.backend {
            return "No such backend.\n".to_owned();
        }
        if words.starts_with(&["add", "server"]) {
            return self.add(name, &words);
        }
        let now = self.now;
        let later = now.after(Duration::from_micros(self.rng.below(2_000_000)));
        let Some(row) = self.servers.get_mut(name) else {
            return "No such server.\n\n".to_owned();
        };
        assert!(!row.foreign, "not ours: {command}");
        assert!(!(row.read && row.held_by_operator()), "under the operator's hand: {command} {row:?}");
        match words[..] {
            ["enable", "health", _] => {
                if !row.checks {
                    return "Health check was not configured on this server, cannot enable.\n\n".to_owned();
                }
                if !row.checking {
                    (row.checking, row.health, row.next_check) = (true, RISE, later);
                }
            }
            ["set", "server", _, "weight", weight] => row.weight = weight.parse().unwrap(),
            ["set", "server", _, "state", state] => {
                let admin = match state {
                    "ready" => 0,
                    "drain" => DRAIN,
                    "maint" => MAINT,
                    _ => panic!("{command}"),
                };
                if row.admin & MAINT != 0 && admin != MAINT {
                    (row.health, row.next_check, row.fresh) = (RISE, later, false);
                }
                let served = self.served.contains(&row.addr);
                if admin == MAINT {
                    self.served.remove(&row.addr);
                }
                let may_serve = !row.checks || row.fresh || served || row.admin == 0;
                assert!(admin != 0 || may_serve, "in rotation unchecked: {command} {row:?}");
                row.since = if row.admin == admin { row.since } else { now };
                row.admin = admin;
            }
            ["del", "server", _] => {
                if row.admin & MAINT == 0 {
                    return "Only servers in maintenance mode can be deleted.\n".to_owned();
                }
                assert!(now.since(row.quiet) >= 30 * SECOND, "deleted in haste: {row:?}");
                self.servers.remove(name);
                return "Server deleted.\n".to_owned();
            }
            _ => panic!("unknown: {command}"),
        }
        "\n".to_owned()
    }

    fn add(&mut self, name: &str, words: &[&str]) -> String {
        assert!(name.starts_with("b-") && !words.contains(&"enabled"), "{words:?}");
        let id = words.iter().position(|word| *word == "id").map(|at| words[at + 1].parse().unwrap());
        let id = id.expect("always an id");
        if let Some(text) = self.refuse_add {
            return format!("{text}\n");
        }
        if self.servers.get(name).is_some_and(|row| row.id == id) {
            return format!("'id' : custom id {id} already used at (null):0 ('server {name}').\n\n");
        }
        if self.servers.contains_key(name) {
            return "Already exists a server with the same name in backend.\n".to_owned();
        }
        assert!(self.servers.values().all(|row| row.id != id), "id {id} is taken");
        let checks = words.contains(&"check");
        let server = Server {
            addr: words[3].parse().expect("address and port"),
            id,
            admin: MAINT,
            weight: if words.ends_with(&["weight", "0"]) { 0 } else { 1 },
            checks,
            checking: false,
            result: 0,
            health: 0,
            next_check: Mono::NEVER,
            fresh: false,
            used: 0,
            quiet: self.now,
            since: self.now,
            foreign: false,
            read: true,
        };
        self.servers.insert(name.to_owned(), server);
        "New server registered.\n\n".to_owned()
    }
}

// --- chance ---

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (10..10 + many(count)).collect(),
    }
}

/// `SEEDS=1000` tries harder.
fn many(count: u64) -> u64 {
    std::env::var("SEEDS").map_or(count, |many| many.parse().unwrap())
}
