//! The machines of `apache` and `caddy` against models of their servers on virtual time: servers that lose questions and
//! answers, delay them, do things twice, restart, forget, lie, answer garbage, and are changed by others meanwhile.
//!
//! Whatever happened, once it stops happening the server becomes what the table wants, and then nothing more is written.
//! On the way the models check every question: nothing that is not ours is touched, nothing is sent that would be cut,
//! and Caddy is not made to load its configuration more often than allowed. A failing run prints its seed:
//! `SEED=n cargo test --test sim_http_sinks`.
#![cfg(all(feature = "apache", feature = "caddy"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use beacond::clock::Mono;
use beacond::http1::{Asked, Progress, Reader};
use beacond::sinks::Want;
use beacond::sinks::apache::machine::{Door as ApacheDoor, Evict, Machine as ApacheMachine};
use beacond::sinks::apache::page::{Balancer, Status, Worker, render};
use beacond::sinks::caddy::machine::{Door as CaddyDoor, Machine as CaddyMachine};
use beacond::sinks::diff::Goal;
use beacond::sinks::machine::{Ask, Machine, Todo};
use beacond::url::Url;
use beacond::views::ViewState;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn apache_converges() {
    for seed in seeds(60) {
        let kind = Kind { persist: seed % 3 == 0, old: seed % 4 == 1, fixed: seed % 5 == 2 };
        let evict = if seed % 7 == 3 { Evict::Drain } else { Evict::Disable };
        let mut world = World::new(seed, apache(evict), Apache::new(kind));
        world.storm(150);
        world.calm();
        world.server.assert_follows(&world.want, &world.known, seed);
        world.assert_quiet();
    }
}

#[test]
fn caddy_converges() {
    for seed in seeds(60) {
        let mut world = World::new(seed, caddy(), Caddy::new(seed % 2 == 0));
        world.storm(150);
        world.calm();
        world.server.assert_follows(&world.want, &world.known, seed);
        world.assert_quiet();
    }
}

#[test]
fn changes_are_there_at_once() {
    let mut world = World::new(1, apache(Evict::Disable), Apache::new(Kind::default()));
    world.run(12 * SECOND);
    world.set(&key(1), Some(Goal::Up(7)));
    world.run(10 * MS);
    assert_eq!(world.machine.view(&key(1)).0, ViewState::Up);
    world.set(&key(1), Some(Goal::Out));
    world.run(10 * MS);
    assert!(world.server.worker(&key(1)).unwrap().status.disabled);

    let mut world = World::new(1, caddy(), Caddy::new(false));
    world.run(12 * SECOND);
    let one = world.set(&key(1), Some(Goal::Up(7)));
    world.run(10 * MS);
    assert_eq!(world.machine.view(&one).0, ViewState::Up);
    let two = world.set(&key(2), Some(Goal::Up(7)));
    world.run(150 * MS);
    assert_eq!(world.machine.view(&two).0, ViewState::Down, "the gap");
    world.run(100 * MS);
    assert_eq!(world.machine.view(&two).0, ViewState::Up);
}

#[test]
fn nothing_unknown_is_touched_before_or_after_the_table_has_settled() {
    let mut world = World::new(2, apache(Evict::Disable), Apache::new(Kind::default()));
    world.set(&key(1), Some(Goal::Up(1)));
    world.run(SECOND);
    world.restart_beacond();
    world.want = Want::default();
    let writes = world.server.writes();
    world.run(100 * SECOND);
    world.want.settled = true;
    world.run(100 * SECOND);
    assert_eq!(world.server.writes(), writes, "this beacond has never heard of it");
    world.set(&key(1), Some(Goal::Up(1)));
    world.run(10 * SECOND);
    world.set(&key(1), None);
    world.run(10 * SECOND);
    assert!(world.server.worker(&key(1)).unwrap().status.disabled, "forgotten, and once ours");
}

#[test]
fn a_server_that_is_away_is_asked_ever_more_rarely_and_told_of_once() {
    let mut world = World::new(3, apache(Evict::Disable), Apache::new(Kind::default()));
    world.set(&key(1), Some(Goal::Up(1)));
    world.run(SECOND);
    world.away = true;
    let asked = world.asked;
    world.run(120 * SECOND);
    assert!((6..=16).contains(&(world.asked - asked)), "{} questions in two minutes", world.asked - asked);
    assert_eq!(world.log.iter().filter(|l| l.contains("refused")).count(), 1, "{:?}", world.log);
    world.away = false;
    world.run(31 * SECOND);
    assert!(world.log.iter().any(|l| l == "Apache is back"));
}

#[test]
fn a_restart_is_healed_when_the_connection_goes() {
    let mut world = World::new(4, apache(Evict::Disable), Apache::new(Kind::default()));
    for n in 1..=5 {
        world.set(&key(n), Some(Goal::Up(1)));
    }
    world.run(3 * SECOND);
    world.server.restart(&mut world.rng);
    world.machine.closed(world.now);
    world.run(1_100 * MS);
    world.server.assert_follows(&world.want, &world.known, 4);
}

#[test]
fn a_reload_in_the_middle_of_a_change_does_not_hold_it_back() {
    fn reloaded<M: Machine, S: Server>(mut world: World<M, S>) {
        world.run(12 * SECOND);
        let place = world.set(&key(1), Some(Goal::Up(1)));
        loop {
            match world.machine.next(&world.want, world.now) {
                Todo::Wait(at) => world.now = at,
                Todo::Ask(ask) if ask.body.is_some() => break,
                Todo::Ask(ask) => {
                    let (_, answer) = world.transport(&ask);
                    world.deliver(answer);
                }
            }
        }
        world.reload_beacond();
        world.run(SECOND);
        assert_eq!(world.machine.view(&place), (ViewState::Up, None));
    }
    reloaded(World::new(5, apache(Evict::Disable), Apache::new(Kind::default())));
    reloaded(World::new(5, caddy(), Caddy::new(false)));
}

// --- the world ---

/// What the model of a server does.
trait Server {
    /// Answers, and does what it is asked.
    fn serve(&mut self, ask: &Ask, now: Mono, known: &BTreeSet<String>, rng: &mut Rng) -> Vec<u8>;
    /// Claims to do what it is asked, or that it will not.
    fn lie(&mut self, ask: &Ask, rng: &mut Rng) -> Vec<u8>;
    /// Something happens to it.
    fn upset(&mut self, rng: &mut Rng);
    fn restart(&mut self, rng: &mut Rng);
    /// Whatever an operator holds is let go.
    fn release(&mut self);
    /// Another beacond drives it, which does not know when the last one did.
    fn driven_anew(&mut self) {}
    fn writes(&self) -> usize;
    /// What it has is what the table wants.
    fn assert_follows(&self, want: &Want<String>, known: &BTreeSet<String>, seed: u64);
}

struct World<M, S> {
    now: Mono,
    rng: Rng,
    seed: u64,
    machine: M,
    fresh: fn() -> M,
    server: S,
    want: Want<String>,
    /// What the table named when this beacond compared it with what the server really had.
    known: BTreeSet<String>,
    /// The same, since ever.
    named: BTreeSet<String>,
    pending: Option<(Mono, Result<Vec<u8>, String>)>,
    stormy: bool,
    away: bool,
    asked: usize,
    log: Vec<String>,
}

impl<M: Machine, S: Server> World<M, S> {
    fn new(seed: u64, fresh: fn() -> M, server: S) -> World<M, S> {
        println!("seed {seed}");
        let want = Want { settled: true, ..Want::default() };
        World {
            now: Mono(1),
            rng: Rng(seed),
            seed,
            machine: fresh(),
            fresh,
            server,
            want,
            known: BTreeSet::new(),
            named: BTreeSet::new(),
            pending: None,
            stormy: false,
            away: false,
            asked: 0,
            log: Vec::new(),
        }
    }

    /// The server's name for it.
    fn set(&mut self, key: &str, goal: Option<Goal>) -> String {
        let url = Url::parse(format!("http://{}", key.trim_start_matches("http://")).as_bytes()).unwrap();
        let place = self.machine.place(&url).unwrap();
        match goal {
            Some(goal) => {
                self.want.servers.insert(place.clone(), goal);
                self.named.insert(place.clone());
            }
            None => drop(self.want.servers.remove(place.as_str())),
        }
        self.machine.members_changed(self.now);
        place
    }

    fn restart_beacond(&mut self) {
        self.machine = (self.fresh)();
        self.pending = None;
        self.known.clear();
        self.server.driven_anew();
    }

    /// The section was changed: what was under way is lost.
    fn reload_beacond(&mut self) {
        let old = std::mem::replace(&mut self.machine, (self.fresh)());
        self.machine.inherit(old);
        self.pending = None;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        while self.now < end {
            let next = self.turn();
            self.now = next.max(Mono(self.now.0 + 1)).min(end);
        }
    }

    /// Everything that is due now; the time of the next thing.
    fn turn(&mut self) -> Mono {
        for _ in 0..1_000 {
            if let Some((at, answer)) = self.pending.take() {
                if self.now < at {
                    self.pending = Some((at, answer));
                    return at;
                }
                self.deliver(answer);
            }
            let todo = self.machine.next(&self.want, self.now);
            self.log.extend(self.machine.news().into_iter().map(|news| news.text));
            match todo {
                Todo::Wait(at) if self.pending.is_none() => {
                    let wanted = self.want.servers.iter().map(|(key, _)| key.clone());
                    let well = |key: &String| self.machine.view(key).1.is_none();
                    self.known.extend(wanted.filter(well));
                    return at;
                }
                Todo::Wait(at) => return at,
                Todo::Ask(ask) => self.pending = Some(self.transport(&ask)),
            }
        }
        panic!("seed {}: the machine does not come to rest: {:?}", self.seed, self.log);
    }

    fn deliver(&mut self, answer: Result<Vec<u8>, String>) {
        let random = self.rng.next();
        let read = answer.and_then(|bytes| {
            let mut reader = Reader::new(Asked::Body, 1 << 20);
            match reader.feed(&bytes) {
                Ok(Progress::Done { response, .. }) => Ok(response),
                Ok(Progress::More) => Err("closed inside the response".to_owned()),
                Err(e) => Err(e.to_string()),
            }
        });
        match read {
            Ok(response) => self.machine.answered(&response, self.now, random),
            Err(why) => self.machine.failed(&why, self.now, random),
        }
    }

    fn transport(&mut self, ask: &Ask) -> (Mono, Result<Vec<u8>, String>) {
        self.asked += 1;
        if self.away {
            return (self.now.after(MS), Err("Connection refused".to_owned()));
        }
        let late = self.now.after(2 * SECOND);
        let serve =
            |world: &mut World<M, S>| world.server.serve(ask, world.now, &world.named, &mut world.rng);
        if !self.stormy {
            return (self.now.after(MS), Ok(serve(self)));
        }
        match self.rng.below(12) {
            0 => (late, Err("no answer in time".to_owned())),
            1 => {
                serve(self);
                (late, Err("no answer in time".to_owned()))
            }
            2 => {
                // Once more, over another connection.
                serve(self);
                (self.now.after(3 * MS), Ok(serve(self)))
            }
            3 => {
                let mut answer = serve(self);
                answer.truncate(self.rng.index(answer.len() + 1));
                (self.now.after(MS), Ok(answer))
            }
            4 => {
                let mut answer = serve(self);
                // In the head: a body that is another, with the mark of the right one, nobody can tell.
                let at = self.rng.index(answer.len().min(40));
                answer[at] ^= 1 << self.rng.below(7);
                (self.now.after(MS), Ok(answer))
            }
            5 => (self.now.after(MS), Ok(self.server.lie(ask, &mut self.rng))),
            6 => (self.now.after(MS), Err("Connection refused".to_owned())),
            7 => (self.now.after(Duration::from_millis(self.rng.below(1_900))), Ok(serve(self))),
            _ => (self.now.after(MS), Ok(serve(self))),
        }
    }

    fn storm(&mut self, steps: usize) {
        self.stormy = true;
        for _ in 0..steps {
            match self.rng.below(10) {
                0..=4 => {
                    let which = key(1 + self.rng.below(8));
                    let goal = match self.rng.below(8) {
                        0 => Some(Goal::Out),
                        1 => Some(Goal::Drain),
                        2 => None,
                        3 => Some(Goal::Up(0)),
                        _ => Some(Goal::Up(u16::try_from(1 + self.rng.below(256)).unwrap())),
                    };
                    self.set(&which, goal);
                }
                5 => self.server.restart(&mut self.rng),
                6 => self.server.upset(&mut self.rng),
                7 => self.machine.closed(self.now),
                8 if self.rng.below(4) == 0 => self.restart_beacond(),
                9 if self.rng.below(4) == 0 => self.reload_beacond(),
                _ => {}
            }
            let pause = Duration::from_millis(self.rng.below(3_000));
            self.run(pause);
        }
    }

    fn calm(&mut self) {
        self.stormy = false;
        self.server.release();
        self.run(400 * SECOND);
    }

    /// It has converged: no writes, and no complaint.
    fn assert_quiet(&mut self) {
        let writes = self.server.writes();
        self.run(120 * SECOND);
        assert_eq!(self.server.writes(), writes, "seed {}: still writing", self.seed);
        let keys: Vec<String> = self.want.servers.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            let (state, error) = self.machine.view(&key);
            assert_eq!(error, None, "seed {}: {key} {state:?}", self.seed);
        }
    }
}

/// A member's name; one has the scheme's own port, which Apache does not write.
fn key(n: u64) -> String {
    if n == 3 { "http://10.0.0.3".to_owned() } else { format!("http://10.0.0.{n}:8080") }
}

fn response(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

// --- Apache ---

fn apache(evict: Evict) -> fn() -> ApacheMachine {
    fn of(evict: Evict) -> ApacheMachine {
        ApacheMachine::new(ApacheDoor {
            target: "/m".to_owned(),
            referer: "http://lb/m".to_owned(),
            balancer: "web".to_owned(),
            evict,
            every: 5 * SECOND,
        })
    }
    match evict {
        Evict::Drain => || of(Evict::Drain),
        Evict::Disable => || of(Evict::Disable),
    }
}

#[derive(Clone, Copy, Default)]
struct Kind {
    /// BalancerPersist.
    persist: bool,
    /// The XML has no nonce.
    old: bool,
    /// The nonce is of the configuration.
    fixed: bool,
}

struct Apache {
    kind: Kind,
    state: Balancer,
    nonce: String,
    writes: usize,
}

const FOREIGN: [&str; 3] = ["http://10.9.9.9:8080", "http://10.0.0.1:8080/app", "http://10.9.9.8"];

impl Apache {
    fn new(kind: Kind) -> Apache {
        let state = Balancer { nonce: None, workers: Apache::configured() };
        Apache { kind, state, nonce: "n-0".to_owned(), writes: 0 }
    }

    fn configured() -> Vec<Worker> {
        let with = |name: &str, factor, status| Worker {
            name: name.to_owned(),
            factor,
            status,
            ..Worker::default()
        };
        let ok = Status { ok: true, ..Status::default() };
        let disabled = Status { disabled: true, ..Status::default() };
        vec![
            with(FOREIGN[0], 250, ok),
            with(FOREIGN[1], 100, disabled),
            with(FOREIGN[2], 100, Status { draining: true, ..ok }),
        ]
    }

    fn worker(&self, key: &str) -> Option<&Worker> {
        self.state.workers.iter().find(|worker| worker.name == key)
    }

    fn page(&self, state: &Balancer) -> Vec<u8> {
        let nonce = (!self.kind.old).then(|| self.nonce.clone());
        response(200, "", &render("web", &Balancer { nonce, workers: state.workers.clone() }))
    }

    fn change(&mut self, body: &str, known: &BTreeSet<String>) -> Option<Vec<u8>> {
        assert!(body.len() < 1_024 && body.ends_with("&xml=1"), "{body}");
        let decode = |text: &str| text.replace("%3A", ":").replace("%2F", "/");
        let pairs: Vec<(&str, String)> =
            body.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k, decode(v))).collect();
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("b"), Some("web"));
        self.writes += 1;
        let name = get("b_nwrkr").or(get("w")).unwrap();
        assert!(known.contains(name), "{name} is not ours");
        assert!(!FOREIGN.contains(&name));
        if get("nonce") != Some(&self.nonce) {
            return None;
        }
        if get("b_nwrkr").is_some() {
            assert_eq!(get("b_wyes"), Some("1"));
            if self.worker(name).is_some() || self.state.workers.len() == 14 {
                return Some(response(400, "", "<!DOCTYPE HTML>"));
            }
            let status = Status { disabled: true, ..Status::default() };
            self.state.workers.push(Worker {
                name: name.to_owned(),
                factor: 100,
                status,
                ..Worker::default()
            });
            return None;
        }
        let worker = self.state.workers.iter_mut().find(|worker| worker.name == name)?;
        for (key, value) in &pairs {
            match *key {
                "w_status_D" => worker.status.disabled = value == "1",
                "w_status_N" => worker.status.draining = value == "1",
                "w_lf" => {
                    let (whole, part) = value.split_once('.').unwrap();
                    let whole: u32 = whole.parse().unwrap();
                    assert!((1..=100).contains(&whole) && part == "00");
                    worker.factor = whole * 100;
                }
                _ => {}
            }
        }
        worker.status.ok = !worker.status.disabled;
        None
    }
}

impl Server for Apache {
    fn serve(&mut self, ask: &Ask, _: Mono, known: &BTreeSet<String>, rng: &mut Rng) -> Vec<u8> {
        assert!(ask.headers.contains(&("Referer", "http://lb/m".to_owned())));
        match (ask.method, ask.target.as_str()) {
            ("GET", "/m?xml=1") => self.page(&self.state),
            ("GET", "/m") => {
                let page = format!(
                    "<html><h3>for <a href=\"/m?b=web&amp;nonce={}\">balancer://web</a></h3><td>14 [{} Used]</td>",
                    self.nonce,
                    self.state.workers.len()
                );
                response(200, "", &page)
            }
            ("POST", "/m") => {
                let refusal = self.change(ask.body.as_ref().unwrap(), known);
                // Requests go on elsewhere.
                for worker in &mut self.state.workers {
                    worker.busy = rng.below(3).saturating_sub(1);
                    worker.elected += u64::from(worker.status.ok);
                }
                refusal.unwrap_or_else(|| self.page(&self.state))
            }
            other => panic!("{other:?}"),
        }
    }

    fn lie(&mut self, _: &Ask, rng: &mut Rng) -> Vec<u8> {
        match rng.below(5) {
            0 => response(400, "", "<!DOCTYPE HTML>"),
            1 => response(503, "", "busy"),
            2 => response(200, "", "<!DOCTYPE HTML><html><h1>Load Balancer Manager</h1>"),
            _ => self.page(&self.state),
        }
    }

    fn upset(&mut self, rng: &mut Rng) {
        // Only what is not the machine's to undo.
        let at = rng.index(self.state.workers.len());
        let worker = &mut self.state.workers[at];
        if FOREIGN.contains(&worker.name.as_str()) {
            return;
        }
        worker.status.stopped ^= true;
    }

    fn restart(&mut self, rng: &mut Rng) {
        if self.kind.persist {
            return;
        }
        self.state.workers = Apache::configured();
        if !self.kind.fixed {
            self.nonce = format!("n-{}", rng.below(1 << 30));
        }
    }

    fn release(&mut self) {
        self.state.workers.iter_mut().for_each(|worker| worker.status.stopped = false);
    }

    fn writes(&self) -> usize {
        self.writes
    }

    fn assert_follows(&self, want: &Want<String>, known: &BTreeSet<String>, seed: u64) {
        for foreign in Apache::configured() {
            let found = self.worker(&foreign.name).unwrap();
            assert_eq!(
                (found.factor, found.status),
                (foreign.factor, foreign.status),
                "seed {seed}: not ours to touch"
            );
        }
        for key in known {
            let found = self.worker(key);
            let out = |worker: &Worker| worker.status.disabled || worker.status.draining;
            match want.servers.get(key) {
                Some(Goal::Up(weight @ 1..)) => {
                    let worker = found.unwrap_or_else(|| panic!("seed {seed}: {key} is missing"));
                    let factor = u32::from(*weight).min(100) * 100;
                    assert!(!out(worker) && worker.factor == factor, "seed {seed}: {weight} {worker:?}");
                }
                _ => assert!(found.is_none_or(out), "seed {seed}: {found:?}"),
            }
            let same = self.state.workers.iter().filter(|worker| worker.name == *key).count();
            assert!(same <= 1, "seed {seed}: {key} twice");
        }
    }
}

// --- Caddy ---

fn caddy() -> fn() -> CaddyMachine {
    || {
        CaddyMachine::new(CaddyDoor {
            target: "/id/web/upstreams".to_owned(),
            id: "web".to_owned(),
            tls: false,
            every: 5 * SECOND,
            min_gap: GAP,
        })
    }
}

const GAP: Duration = Duration::from_millis(200);

struct Caddy {
    list: Option<Vec<Value>>,
    resume: bool,
    version: u64,
    writes: usize,
    last: Option<Mono>,
}

impl Caddy {
    fn new(resume: bool) -> Caddy {
        Caddy { list: Some(Caddy::configured()), resume, version: 0, writes: 0, last: None }
    }

    fn configured() -> Vec<Value> {
        vec![json!({"dial": "10.9.9.9:80", "max_requests": 3}), json!({"dial": "unix//run/x"})]
    }

    fn etag(&self) -> String {
        format!("\"/config/x {}\"", self.version)
    }

    fn foreign(list: &[Value], known: &BTreeSet<String>) -> Vec<Value> {
        let ours = |entry: &&Value| entry["dial"].as_str().is_some_and(|dial| known.contains(dial));
        list.iter().filter(|entry| !ours(entry)).cloned().collect()
    }
}

impl Server for Caddy {
    fn serve(&mut self, ask: &Ask, now: Mono, known: &BTreeSet<String>, _: &mut Rng) -> Vec<u8> {
        assert_eq!(ask.target, "/id/web/upstreams");
        let current = self.list.clone();
        if ask.method == "GET" {
            let text = current.map_or(Value::Null, Value::Array).to_string();
            let head = "HTTP/1.1 200 OK\r\nTrailer: ETag\r\nTransfer-Encoding: chunked\r\n\r\n";
            let etag = self.etag();
            return format!("{head}{:x}\r\n{text}\r\n0\r\nEtag: {etag}\r\n\r\n", text.len()).into_bytes();
        }
        self.writes += 1;
        let expected = ask.headers.iter().find(|(name, _)| *name == "If-Match").map(|(_, value)| value);
        if expected != Some(&self.etag()) {
            return response(412, "", r#"{"error":"If-Match header did not match current config hash"}"#);
        }
        if ask.method == "PATCH" && current.is_none() {
            return response(500, "", r#"{"error":"key does not exist: upstreams"}"#);
        }
        if ask.method == "PUT" && current.is_some() {
            return response(500, "", r#"{"error":"key already exists: upstreams"}"#);
        }
        let Value::Array(list) = serde_json::from_str(ask.body.as_ref().unwrap()).unwrap() else { panic!() };
        let before = current.unwrap_or_default();
        assert_ne!(list, before, "a change that changes nothing loads everything anew");
        assert_eq!(Caddy::foreign(&list, known), Caddy::foreign(&before, known), "not ours to touch");
        if let Some(last) = self.last.replace(now) {
            assert!(now.since(last) >= GAP, "{:?} after the last change", now.since(last));
        }
        self.list = Some(list);
        self.version += 1;
        response(200, "Connection: close\r\n", "")
    }

    fn lie(&mut self, ask: &Ask, rng: &mut Rng) -> Vec<u8> {
        match rng.below(5) {
            0 => response(412, "", r#"{"error":"If-Match"}"#),
            1 => response(500, "", r#"{"error":"loading new config"}"#),
            2 => response(200, "", "{}"),
            3 if ask.method == "GET" => response(404, "", r#"{"error":"unknown object ID 'web'"}"#),
            _ => response(200, "", ""),
        }
    }

    fn upset(&mut self, rng: &mut Rng) {
        // Somebody else edits the list, and moves what is in it.
        let list = self.list.get_or_insert_default();
        self.version += 1;
        match rng.below(4) {
            0 => list.push(json!({"dial": format!("10.9.9.{}:80", rng.below(5))})),
            1 if !list.is_empty() => drop(list.remove(rng.index(list.len()))),
            2 => list.reverse(),
            _ => self.list = None,
        }
    }

    fn restart(&mut self, _: &mut Rng) {
        if !self.resume {
            self.list = Some(Caddy::configured());
            self.version += 1;
        }
    }

    fn release(&mut self) {}

    fn driven_anew(&mut self) {
        self.last = None;
    }

    fn writes(&self) -> usize {
        self.writes
    }

    fn assert_follows(&self, want: &Want<String>, known: &BTreeSet<String>, seed: u64) {
        let list = self.list.clone().unwrap_or_default();
        for key in known {
            let times = list.iter().filter(|entry| entry["dial"] == **key).count();
            let up = matches!(want.servers.get(key), Some(Goal::Up(1..)));
            assert_eq!(times, usize::from(up), "seed {seed}: {key} in {list:?}");
        }
    }
}

// --- chance ---

struct Rng(u64);

impl Rng {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(u64::try_from(end).unwrap())).unwrap()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// `SEEDS=1000` tries harder.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..std::env::var("SEEDS").map_or(count, |many| many.parse().unwrap())).collect(),
    }
}
