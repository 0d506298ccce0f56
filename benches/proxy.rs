//! What the proxy takes, beside HAProxy with one thread: CPU for bytes and for connections, memory and wake-ups of
//! sessions at rest, time added to a round trip.
//!
//! The proxy has CPU 0 for itself; load and backend, one thread, have CPU 1. The two proxies take turns within one
//! run, and the median of the ratios counts. `-- self` puts a second HAProxy in our place: what that shows beside 1 is
//! noise of the machine and of the generator.
#![expect(clippy::disallowed_methods, reason = "a measurement waits between two looks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::daemon::Daemon;
use common::haproxy_tcp::HaproxyTcp;
use common::tcp::many_descriptors;
use common::{free_port, proxy};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use support::load::Load;
use support::{Figures, cpu, first, median, pin, status_of};

const PROXYS_CPU: usize = 0;
const LOADS_CPU: usize = 1;
const ROUNDS: usize = 7;
const BYTES: usize = 512 << 20;
const CONNECTIONS: usize = 4000;
const IDLE: usize = 5000;
const TRIPS: usize = 2000;
const REST: Duration = Duration::from_secs(5);

/// The same program's ratios differ by up to a tenth from run to run on a shared virtual machine with two CPUs.
const NOISE: f64 = 1.1;

/// What a proxy is to do.
#[derive(Clone, Copy)]
enum Task {
    Copy,
    Splice,
    Sni,
}

/// A running proxy, pinned to its CPU.
struct Proxy {
    name: &'static str,
    pid: u32,
    addr: SocketAddr,
    _runs: Box<dyn std::any::Any>,
}

impl Proxy {
    fn haproxy(dir: &Path, task: Task, to: SocketAddr) -> Proxy {
        let addr = free_port(Ipv4Addr::LOCALHOST);
        let lines = match task {
            Task::Copy => format!("  default_backend out\nbackend out\n  server s {to}"),
            Task::Splice => format!(
                "  option splice-request\n  option splice-response\n  default_backend out\n\
                 backend out\n  option splice-request\n  option splice-response\n  server s {to}"
            ),
            Task::Sni => format!(
                "  tcp-request inspect-delay 5s\n  tcp-request content accept if {{ req.ssl_hello_type 1 }}\n  \
                 use_backend out if {{ req.ssl_sni -i www.example.net }}\nbackend out\n  server s {to}"
            ),
        };
        let sections = format!("frontend in\n  bind {addr} backlog 4096\n{lines}");
        let haproxy = HaproxyTcp::start(dir, &sections, &[addr]);
        Proxy::new("haproxy", haproxy.pid(), addr, Box::new(haproxy))
    }

    fn beacond(dir: &Path, task: Task, to: SocketAddr) -> Proxy {
        let options = match task {
            Task::Copy => format!("--no-splice --route default={to}"),
            Task::Splice => format!("--route default={to}"),
            Task::Sni => format!("--sniff --route www.example.net={to}"),
        };
        let daemon = Daemon::start_with("info", dir, &format!("proxy --listen 127.0.0.1:0 {options}"));
        let addr = daemon.proxying();
        Proxy::new("beacond", daemon.pid(), addr, Box::new(daemon))
    }

    fn new(name: &'static str, pid: u32, addr: SocketAddr, runs: Box<dyn std::any::Any>) -> Proxy {
        pin(pid, PROXYS_CPU);
        first(pid, true);
        Proxy { name, pid, addr, _runs: runs }
    }

    /// CPU seconds that `act` takes it.
    fn spends(&self, act: impl FnOnce(SocketAddr)) -> f64 {
        let before = cpu(self.pid);
        act(self.addr);
        (cpu(self.pid) - before).as_secs_f64()
    }
}

/// The two that are compared.
struct Pair {
    ours: Proxy,
    theirs: Proxy,
}

impl Pair {
    fn start(dir: &Path, task: Task, to: SocketAddr) -> Pair {
        let theirs = Proxy::haproxy(dir, task, to);
        let itself = std::env::args().any(|word| word == "self");
        let ours = if itself {
            Proxy { name: "itself", ..Proxy::haproxy(dir, task, to) }
        } else {
            Proxy::beacond(dir, task, to)
        };
        Pair { ours, theirs }
    }

    /// CPU for `act`, in turns; `per` and `unit` say of what.
    fn cpu(&self, figures: &mut Figures, what: &str, per: f64, unit: &str, mut act: impl FnMut(SocketAddr)) {
        // Both are warm before anything counts.
        act(self.theirs.addr);
        act(self.ours.addr);
        let round = |_| (self.theirs.spends(&mut act), self.ours.spends(&mut act));
        let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(round).collect();
        figures.note(&format!("{what}: haproxy"), median(rounds.iter().map(|r| r.0 * per).collect()), unit);
        figures.note(
            &format!("{what}: {}", self.ours.name),
            median(rounds.iter().map(|r| r.1 * per).collect()),
            unit,
        );
        let ratio = median(rounds.iter().map(|(theirs, ours)| ours / theirs).collect());
        figures.at_most(&format!("{what}: {} against haproxy", self.ours.name), ratio, "x", 1.0, NOISE);
    }
}

fn main() -> ExitCode {
    many_descriptors();
    pin(std::process::id(), LOADS_CPU);
    first(std::process::id(), true);
    let dir = tempfile::tempdir().expect("a folder");
    let (mut figures, mut load) = (Figures::default(), Load::start());
    bytes(&mut figures, dir.path(), &mut load);
    connections(&mut figures, dir.path(), &mut load);
    round_trips(&mut figures, dir.path(), &mut load);
    at_rest(&mut figures, dir.path(), &mut load);
    figures.end()
}

fn bytes(figures: &mut Figures, dir: &Path, load: &mut Load) {
    let per_gib = (1 << 30) as f64 / BYTES as f64;
    for (name, task) in [("copy", Task::Copy), ("splice", Task::Splice)] {
        let pair = Pair::start(dir, task, load.backend);
        for streams in [1, 64] {
            let what = format!("{name}, {streams} stream(s), CPU per GiB");
            pair.cpu(figures, &what, per_gib, " s", |proxy| load.bulk(proxy, streams, BYTES));
        }
    }
}

fn connections(figures: &mut Figures, dir: &Path, load: &mut Load) {
    let (request, hello) = (vec![b'r'; 64], proxy::hello("openssl_default"));
    let each = 1e6 / CONNECTIONS as f64;
    for (what, task, flight) in [
        ("short connection, CPU", Task::Splice, &request),
        ("short connection with SNI, CPU", Task::Sni, &hello),
    ] {
        let pair = Pair::start(dir, task, load.backend);
        pair.cpu(figures, what, each, " us", |proxy| load.short(proxy, CONNECTIONS, flight));
    }
}

/// What a proxy in between adds to the middle round trip.
fn round_trips(figures: &mut Figures, dir: &Path, load: &mut Load) {
    let pair = Pair::start(dir, Task::Splice, load.backend);
    let mut added = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let direct = median(load.round_trips(load.backend, TRIPS));
        for (proxy, added) in [&pair.theirs, &pair.ours].into_iter().zip(&mut added) {
            added.push(median(load.round_trips(proxy.addr, TRIPS)) - direct);
        }
    }
    let ratio = median(added[0].iter().zip(&added[1]).map(|(theirs, ours)| ours / theirs).collect());
    let [theirs, ours] = added.map(median);
    figures.note("p50 added to a round trip of 64 bytes: haproxy", theirs, " us");
    figures.note(&format!("p50 added to a round trip of 64 bytes: {}", pair.ours.name), ours, " us");
    figures.at_most(
        &format!("p50 added to a round trip: {} against haproxy", pair.ours.name),
        ratio,
        "x",
        1.0,
        NOISE,
    );
}

fn at_rest(figures: &mut Figures, dir: &Path, load: &mut Load) {
    let pair = Pair::start(dir, Task::Splice, load.backend);
    for proxy in [&pair.theirs, &pair.ours] {
        let name = proxy.name;
        // What a first session leaves behind belongs to the base.
        load.hold(proxy.addr, 100);
        load.close();
        let base = status_of(proxy.pid, "VmRSS");
        load.hold(proxy.addr, IDLE);
        let each = (status_of(proxy.pid, "VmRSS").saturating_sub(base)) as f64 / IDLE as f64;
        std::thread::sleep(Duration::from_secs(2));
        let before = status_of(proxy.pid, "voluntary_ctxt_switches");
        std::thread::sleep(REST);
        let wakes = (status_of(proxy.pid, "voluntary_ctxt_switches") - before) as f64;
        load.close();
        figures.note(&format!("{name}: memory before any session is held"), base as f64 / 1024.0, " MiB");
        let (memory, rest) = (
            format!("{name}: memory of one of 5,000 sessions at rest"),
            format!("{name}: wake-ups in 5 s of that"),
        );
        if name == "beacond" {
            figures.at_most(&memory, each, " KiB", 1.0, 1.0);
            figures.at_most(&rest, wakes, "", 0.0, 1.0);
        } else {
            figures.note(&memory, each, " KiB");
            figures.note(&rest, wakes, "");
        }
    }
}
