//! How soon a change is visible in a file, and that nothing is written when nothing changes: from sending a datagram until
//! the file says it, read over and over by the measurement; then a minute of 1,000 members in steady state.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks, and waits between two looks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use beacond::beacon::auth::Key;
use common::daemon::{Daemon, args, secret_file};
use common::sender::Sender;
use common::{PATIENCE, SECRET, own_ip, wait_until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Figures, announcement, cpu, first, median, send, sender, urls, worst};

const CHANGES: u16 = 100;
const MEMBERS: u16 = 1000;

/// Of single times among processes that share two CPUs, the worst shows the neighbours too.
const NOISE: f64 = 2.0;

/// How long nothing may be written: `STEADY=5` for a quick look.
const STEADY: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // What it starts inherits that.
    first(std::process::id(), true);
    let mut figures = Figures::default();
    for format in ["prometheus", "envoy", "hosts", "lines"] {
        visible(format, &mut figures);
    }
    steady(&mut figures);
    figures.end()
}

fn daemon(dir: &Path, file: &Path, more: &str) -> Daemon {
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 10.0.0.0/8 --allow 127.0.0.0/8 --secret-file {} --balancer web \
         --max-members 1000 + file --balancer web --file {} {more}",
        secret_file(dir),
        file.display()
    );
    Daemon::spawn("info", &dir.join("control"), &args(&line))
}

/// Members come and say goodbye, one after the other.
fn visible(format: &str, figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("members");
    let name = if format == "hosts" { " --service web.lan" } else { "" };
    let daemon = daemon(dir.path(), &file, &format!("--format {format}{name}"));
    let sender = Sender::new(daemon.listening());
    wait_until("there is a file", || file.exists());
    let mut times = Vec::new();
    for nth in 0..CHANGES / 2 {
        let ip = own_ip();
        let url = format!("http://{ip}:{}", 8000 + nth);
        let sees = |what: &dyn Fn(&str) -> bool| {
            let start = Instant::now();
            while !fs::read_to_string(&file).is_ok_and(|text| what(&text)) {
                assert!(start.elapsed() < PATIENCE, "{url}; the log:\n{}", daemon.log().join("\n"));
                // Whoever goes before others must leave them room.
                std::thread::sleep(Duration::from_micros(50));
            }
        };
        let line = |text: &str| text.lines().find(|line| line.contains(&ip.to_string())).map(str::to_owned);
        times.push(timed(|| {
            sender.announce(&url, "");
            sees(&|text| line(text).is_some());
        }));
        times.push(timed(|| {
            sender.leave(&url);
            sees(&|text| line(text).is_none_or(|line| line.contains("DRAINING")));
        }));
    }
    let what = |which: &str| format!("{format}: change visible in the file, {which} of {CHANGES}");
    figures.at_most(&what("median"), median(times.clone()), " ms", 10.0, NOISE);
    figures.at_most(&what("worst"), worst(&times), " ms", 10.0, NOISE);
}

/// Everybody announces every 5 s, and nothing changes.
fn steady(figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("members");
    let daemon = daemon(dir.path(), &file, "--format prometheus");
    let (key, socket) = (Key::from_secret(SECRET.as_bytes()), sender(daemon.listening()));
    let urls = urls(MEMBERS);
    let everybody = || {
        for chunk in urls.chunks(50) {
            send(&socket, &chunk.iter().map(|url| announcement(url, &key)).collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let all = || fs::read_to_string(&file).is_ok_and(|text| text.matches("targets").count() == urls.len());
    everybody();
    wait_until("all are there", all);
    let stamp = || fs::metadata(&file).map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).expect("it is there");
    let time = std::env::var("STEADY").ok().and_then(|s| s.parse().ok()).map_or(STEADY, Duration::from_secs);
    let (before, used, end) = (stamp(), cpu(daemon.pid()), Instant::now() + time);
    let (mut writes, mut next) = (0.0, Instant::now());
    let mut last = before;
    while Instant::now() < end {
        if Instant::now() >= next {
            next += Duration::from_secs(5);
            everybody();
        }
        if stamp() != last {
            last = stamp();
            writes += 1.0;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let seconds = time.as_secs_f64();
    figures.at_most(&format!("writes with {MEMBERS} members in {seconds} s"), writes, "", 0.0, 1.0);
    let share = (cpu(daemon.pid()) - used).as_secs_f64() / seconds * 100.0;
    figures.note("CPU meanwhile, announcements and looks at the file", share, " %");
}

/// How long `act` takes, in milliseconds.
fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e3
}
