//! What a receiver takes when it has nothing to do, or little: memory, time to start, wake-ups while idle, and how late
//! it evicts.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads clocks and sends"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use beacond::beacon::auth::Key;
use common::daemon::{Daemon, args, secret_file};
use common::{SECRET, free_port, wait_until};
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Figures, announcement, drained, first, median, send, sender, status_of, urls, worst};

const IDLE: Duration = Duration::from_secs(10);
const STARTS: usize = 20;
const MANY: u16 = 10_000;
const TIMEOUT_MS: f64 = 2000.0;

/// Single times, unlike medians, show whatever else the machine did just then.
const NOISE: f64 = 2.0;

fn main() -> ExitCode {
    // What it starts inherits that.
    first(std::process::id(), true);
    let dir = tempfile::tempdir().expect("a folder");
    let mut figures = Figures::default();
    starts(&mut figures, dir.path());
    idle(&mut figures, dir.path());
    memory(&mut figures, dir.path());
    evictions(&mut figures, dir.path());
    figures.end()
}

fn listen(dir: &Path, more: &str) -> Daemon {
    let secret = secret_file(dir);
    let line = format!("listen --listen 127.0.0.1:0 --balancer web --secret-file {secret} {more}");
    Daemon::start_with("info", dir, &line)
}

/// From before the process exists until its socket is bound, seen from outside: as long as it is not, the kernel
/// refuses what is sent there. Beside it, a program that does nothing, from before it exists until it has ended.
fn starts(figures: &mut Figures, dir: &Path) {
    let secret = secret_file(dir);
    let (mut bound, mut nothing) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let address = free_port(Ipv4Addr::LOCALHOST);
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(address).expect("a route");
        let start = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_beacond"))
            .args(args(&format!("--control {}/control listen --listen {address}", dir.display())))
            .args(["--secret-file", &secret])
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        while socket.send(b"").is_err() || socket.take_error().is_ok_and(|error| error.is_some()) {}
        bound.push(start.elapsed().as_secs_f64() * 1e3);
        let _ = child.kill();
        let _ = child.wait();
        let start = Instant::now();
        assert!(Command::new("true").status().is_ok_and(|status| status.success()));
        nothing.push(start.elapsed().as_secs_f64() * 1e3);
    }
    figures.note("start and end of /bin/true, median", median(nothing), " ms");
    figures.at_most("start until bound, median", median(bound.clone()), " ms", 5.0, NOISE);
    figures.note("start until bound, worst of 20", worst(&bound), " ms");
}

fn idle(figures: &mut Figures, dir: &Path) {
    let daemon = listen(dir, "");
    daemon.listening();
    let wakes = || status_of(daemon.pid(), "voluntary_ctxt_switches");
    // What a start leaves to be done is done when nothing has moved for a while.
    let (mut before, mut quiet) = (wakes(), Instant::now());
    while quiet.elapsed() < Duration::from_millis(200) {
        if wakes() != before {
            (before, quiet) = (wakes(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(IDLE);
    figures.at_most("wake-ups in 10 idle seconds", (wakes() - before) as f64, "", 0.0, 1.0);
}

fn memory(figures: &mut Figures, dir: &Path) {
    let daemon = listen(dir, "");
    let socket = sender(daemon.listening());
    let (urls, key) = (urls(256), Key::from_secret(SECRET.as_bytes()));
    for _ in 0..100 {
        send(&socket, &urls.iter().map(|url| announcement(url, &key)).collect::<Vec<_>>());
    }
    wait_until("all are members", || daemon.counter("member.added") == 256);
    let mib = |name: &str| status_of(daemon.pid(), name) as f64 / 1024.0;
    figures.at_most("resident memory with 256 members", mib("VmRSS"), " MiB", 3.0, 1.0);
    figures.note("of that its own, the rest is mapped files", mib("RssAnon"), " MiB");
}

/// 10,000 members fall silent, all but one: the receiver hears, so the silence is theirs.
fn evictions(figures: &mut Figures, dir: &Path) {
    let secret = secret_file(dir);
    let line = format!(
        "--log-stamp listen --listen 127.0.0.1:0 --balancer web --secret-file {secret} --timeout {TIMEOUT_MS}ms \
         --max-members 20000"
    );
    let daemon = Daemon::spawn("info", &dir.join("control"), &args(&line));
    let to = daemon.listening();
    let (socket, key, urls) = (sender(to), Key::from_secret(SECRET.as_bytes()), urls(MANY));
    let (faithful, silent) = urls.split_last().expect("many");
    // Ten each millisecond: some 10,000 deadlines within a second.
    let mut deadlines = HashMap::new();
    for group in silent.chunks(10) {
        send(&socket, &group.iter().map(|url| announcement(url, &key)).collect::<Vec<_>>());
        let now = unix_ms();
        deadlines.extend(group.iter().map(|url| (url.text().to_owned(), now + TIMEOUT_MS)));
        std::thread::sleep(Duration::from_millis(1));
    }
    drained(to.port());
    let mut late = HashMap::new();
    wait_until("the silent ones are evicted", || {
        send(&socket, &[announcement(faithful, &key)]);
        std::thread::sleep(Duration::from_millis(100));
        // Not asked of the receiver itself: a status of 10,000 members takes it milliseconds.
        daemon.log().iter().filter(|line| evicted(line).is_some()).count() == silent.len()
    });
    for line in daemon.log() {
        if let Some((url, stamp)) = evicted(&line) {
            late.insert(url.to_owned(), stamp - deadlines[url]);
        }
    }
    assert_eq!(late.len(), silent.len(), "every eviction has its line");
    let late: Vec<f64> = late.into_values().collect();
    figures.note("eviction after its deadline, median of 9,999", median(late.clone()), " ms");
    figures.at_most("eviction after its deadline, worst of 9,999", worst(&late), " ms", 10.0, NOISE);
    assert!(late.iter().all(|late| *late > 0.0), "none was evicted early");
}

/// The url of an eviction's line, and its time: the end of the millisecond that the stamp names.
fn evicted(line: &str) -> Option<(&str, f64)> {
    let (stamp, rest) = line.split_once(' ')?;
    let url = rest.split_once("evicted backend ")?.1.split(' ').next()?;
    Some((url, stamp.parse::<f64>().ok()? * 1e3 + 1.0))
}

fn unix_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e3
}
