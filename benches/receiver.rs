//! What a verified announcement costs, beside a loop that only receives and discards; and what a flood does.
//!
//! Both read with the same batched calls from the same poll, with the same receive buffer, on a CPU of their own; the
//! sender has the other. They take turns within one run: bare, right MAC, wrong MAC, and again. The cost is CPU time
//! as the scheduler counts it, system calls included, so the ratio is what the verification, the table and the loop
//! add to what the kernel takes anyway. Full batches show that best; at a steady rate most of it is waking up.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use beacond::beacon::auth::Key;
use beacond::reactor::bank::set_receive_buffer;
use beacond::reactor::udp::{BATCH, Receiver, SCRATCH};
use beacond::url::Url;
use common::daemon::{Daemon, secret_file};
use common::{SECRET, wait_until};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use support::{
    BURST, Figures, announcement, cpu, drained, first, median, paced, pin, queue, send, sender, urls,
};

const SENDERS_CPU: usize = 0;
const RECEIVERS_CPU: usize = 1;
const RATE: u32 = 50_000;
const MEMBERS: u16 = 256;
const ROUNDS: usize = 7;
/// Fits in the receive buffer.
const HEAP: u32 = 1000;
const ROUND: Duration = Duration::from_secs(1);
const WRONG_SECRET: &str = "another secret, and as long";
const FLOOD: Duration = Duration::from_secs(5);

/// The same program's ratios differ by up to a tenth from run to run on a shared virtual machine with two CPUs.
const NOISE: f64 = 1.1;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("discard") {
        discard();
    }
    pin(std::process::id(), SENDERS_CPU);
    first(std::process::id(), true);
    let dir = tempfile::tempdir().expect("a folder");
    let mut figures = Figures::default();
    verified(&mut figures, dir.path());
    flooded(&mut figures, dir.path());
    figures.end()
}

/// The bare loop: a poll, batches, a counter.
fn discard() -> ! {
    let mut socket = UdpSocket::bind(([127, 0, 0, 1], 0).into()).expect("a socket");
    set_receive_buffer(&socket, 1 << 20).expect("a buffer");
    println!("{}", socket.local_addr().expect("an address"));
    let mut poll = Poll::new().expect("a poll");
    poll.registry().register(&mut socket, Token(0), Interest::READABLE).expect("registered");
    let (mut events, mut receiver) = (Events::with_capacity(256), Receiver::default());
    let mut scratch = vec![0; SCRATCH];
    let mut bytes = 0;
    loop {
        // A stop and a continue interrupt it.
        let _ = poll.poll(&mut events, None);
        while let Ok(BATCH) =
            receiver.receive(&socket, &mut scratch, &mut |datagram, _| bytes += datagram.len())
        {}
        std::hint::black_box(bytes);
    }
}

/// The bare loop as a process.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start() -> Bare {
        let own = std::env::current_exe().expect("this program");
        let mut child = Command::new(own).arg("discard").stdout(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
        pin(child.id(), RECEIVERS_CPU);
        first(child.id(), true);
        Bare { child, address: line.trim().parse().expect("its address") }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(dir: &Path, more: &str) -> (Daemon, SocketAddr) {
    let secret = secret_file(dir);
    let line = format!("listen --listen 127.0.0.1:0 --balancer web --secret-file {secret} {more}");
    let daemon = Daemon::start_with("info", dir, &line);
    pin(daemon.pid(), RECEIVERS_CPU);
    first(daemon.pid(), true);
    let address = daemon.listening();
    (daemon, address)
}

/// Members that announce themselves in turn.
struct Announcers {
    urls: Vec<Url>,
    key: Key,
    next: usize,
}

impl Announcers {
    fn with(secret: &str) -> Announcers {
        Announcers { urls: urls(MEMBERS), key: Key::from_secret(secret.as_bytes()), next: 0 }
    }

    fn burst(&mut self, count: u32) -> Vec<Vec<u8>> {
        let one = |_| {
            self.next = (self.next + 1) % self.urls.len();
            announcement(&self.urls[self.next], &self.key)
        };
        (0..count).map(one).collect()
    }
}

/// How datagrams reach the receiver.
#[derive(Clone, Copy)]
enum Way {
    /// At [`RATE`], a thousand bursts a second: a receiver faster than its sender wakes for every few.
    Steady,
    /// [`HEAP`] of them lie in the socket before the receiver may go on: it reads in full batches, and hardly anything
    /// but the datagram itself costs. Twenty milliseconds of [`RATE`], as after a pause.
    Heaped,
}

/// What came of one round.
struct Round {
    /// Nanoseconds of CPU that the receiver spent on a datagram.
    cost: f64,
    sent: u64,
    /// Dropped by the kernel because the receiver's buffer was full.
    lost: u64,
}

fn round(way: Way, pid: u32, to: SocketAddr, from: &mut Announcers) -> Round {
    let socket = sender(to);
    let (drops, before) = (queue(to.port()).drops, cpu(pid));
    let sent = match way {
        Way::Steady => paced(RATE, ROUND, || send(&socket, &from.burst(BURST))),
        Way::Heaped => heaped(pid, to.port(), || send(&socket, &from.burst(HEAP))),
    };
    drained(to.port());
    let (lost, spent) = (queue(to.port()).drops - drops, cpu(pid) - before);
    Round { cost: spent.as_secs_f64() * 1e9 / (sent - lost) as f64, sent, lost }
}

fn heaped(pid: u32, port: u16, mut heap: impl FnMut()) -> u64 {
    let process = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    let heaps = RATE / HEAP;
    for _ in 0..heaps {
        kill(process, Signal::SIGSTOP).expect("our child");
        heap();
        kill(process, Signal::SIGCONT).expect("our child");
        drained(port);
    }
    u64::from(heaps * HEAP)
}

fn verified(figures: &mut Figures, dir: &Path) {
    let bare = Bare::start();
    let (daemon, address) = listen(dir, "");
    let (mut right, mut wrong) = (Announcers::with(SECRET), Announcers::with(WRONG_SECRET));
    let (mut sent, mut accepted, mut lost) = (0, 0, 0);
    for (name, way) in [("in full batches", Way::Heaped), ("steady", Way::Steady)] {
        let mut rounds = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            rounds[0].push(round(way, bare.child.id(), bare.address, &mut right));
            rounds[1].push(round(way, daemon.pid(), address, &mut right));
            rounds[2].push(round(way, daemon.pid(), address, &mut wrong));
        }
        accepted += rounds[1].iter().map(|round| round.sent).sum::<u64>();
        sent += rounds[1..].iter().flatten().map(|round| round.sent).sum::<u64>();
        lost += rounds[1..].iter().flatten().map(|round| round.lost).sum::<u64>();
        let [bare, right, wrong] = rounds.map(|rounds| median(rounds.iter().map(|r| r.cost).collect()));
        figures.note(&format!("{name}: receive and discard, CPU per datagram"), bare, " ns");
        figures.note(&format!("{name}: verified announcement, CPU per datagram"), right, " ns");
        figures.note(&format!("{name}: wrong MAC, CPU per datagram"), wrong, " ns");
        figures.at_most(
            &format!("{name}: verified announcement against bare"),
            right / bare,
            "x",
            1.3,
            NOISE,
        );
        figures.at_most(&format!("{name}: wrong MAC against bare"), wrong / bare, "x", 1.25, NOISE);
    }
    let astray = lost
        + sent.abs_diff(daemon.counter("beacon.received") + lost)
        + accepted.abs_diff(daemon.counter("beacon.accepted"));
    figures.at_most("datagrams lost at 50,000/s, 256 members", astray as f64, "", 0.0, 1.0);
}

fn flooded(figures: &mut Figures, dir: &Path) {
    let (daemon, address) = listen(dir, "--timeout 4");
    let paced = flood(&daemon, address, RATE);
    figures.at_most("good announcements lost in a paced flood with a wrong MAC", paced.lost, "", 0.0, 1.0);
    // Two that never sleep would be stopped now and then if they went before everybody.
    first(std::process::id(), false);
    first(daemon.pid(), false);
    let wild = flood(&daemon, address, u32::MAX);
    figures.note("a flood as fast as one CPU sends, datagrams a second", wild.sent, "");
    figures.note("of these the receiver read", wild.read, "");
    figures.note("good announcements lost in that", 100.0 * wild.lost / wild.announced, " %");
    let evicted = daemon.counter("member.evicted");
    figures.at_most("members evicted in both floods", evicted as f64, "", 0.0, 1.0);
    wait_until("all are up", || daemon.counter("member.added") == u64::from(MEMBERS));
}

struct Flood {
    /// Datagrams of the flood a second, and what the receiver read.
    sent: f64,
    read: f64,
    announced: f64,
    /// Good announcements that did not get through.
    lost: f64,
}

/// Members that announce themselves once a second, while somebody without the secret sends at `rate`.
fn flood(daemon: &Daemon, to: SocketAddr, rate: u32) -> Flood {
    let forged = Announcers::with(WRONG_SECRET).burst(BURST);
    let (mut good, socket) = (Announcers::with(SECRET), sender(to));
    let before = ["beacon.accepted", "beacon.received"].map(|name| daemon.counter(name));
    let (start, mut announced) = (Instant::now(), 0u64);
    let sent = paced(rate, FLOOD, || {
        send(&socket, &forged);
        let due = (start.elapsed() * u32::from(MEMBERS)).as_secs();
        send(&socket, &good.burst(u32::try_from(due - announced).expect("few")));
        announced = due;
    });
    drained(to.port());
    let after = ["beacon.accepted", "beacon.received"].map(|name| daemon.counter(name));
    let each = |count: u64| count as f64 / FLOOD.as_secs_f64();
    Flood {
        sent: each(sent),
        read: each(after[1] - before[1]),
        announced: announced as f64,
        lost: (announced - (after[0] - before[0])) as f64,
    }
}
