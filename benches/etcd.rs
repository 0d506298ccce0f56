//! How soon a change is visible in a real etcd: from sending a datagram until etcd's own answer shows it.
//!
//! etcd is asked over and over, each time on a connection of the measurement's own; one such question is the
//! resolution. Then what a thousand members cost in steady state: what etcd writes, and beacond's time.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::daemon::{Daemon, args, secret_file};
use common::etcd::Etcd;
use common::sender::Sender;
use common::{PATIENCE, own_ip};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Figures, median, worst};

const CHANGES: u16 = 100;
const MEMBERS: usize = 1000;
const RANGE: &str = "/beacond/default/default/";

/// Of single times among processes that share two CPUs, the worst shows the neighbours and the disk too.
const NOISE: f64 = 2.0;

fn main() -> ExitCode {
    // Not first in the scheduler's queue: what it starts inherits that, and etcd's threads would let nobody else run.
    let mut figures = Figures::default();
    changes(&mut figures);
    steady(&mut figures);
    figures.end()
}

fn changes(figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path());
    let daemon = beacond(&etcd, dir.path(), "");
    let sender = Sender::new(daemon.listening());
    let questions: Vec<f64> = (0..CHANGES).map(|_| timed(|| drop(etcd.get("/x")))).collect();
    figures.note("one question to etcd, median", median(questions), " ms");

    let (mut all, mut came, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..CHANGES / 2 {
        let url = format!("http://{}:{}", own_ip(), 8000 + nth);
        let key = format!("{RANGE}{url}");
        let until = |there: bool| {
            let start = Instant::now();
            while etcd.get(&key).is_some() != there {
                assert!(start.elapsed() < PATIENCE, "{url}; the log:\n{}", daemon.log().join("\n"));
            }
        };
        came.push(timed(|| {
            sender.announce(&url, "");
            until(true);
        }));
        left.push(timed(|| {
            sender.leave(&url);
            until(false);
        }));
    }
    all.extend(came.iter().chain(&left));
    figures.note("a new member is there, median of 50", median(came), " ms");
    figures.note("a goodbye takes it out, median of 50", median(left), " ms");
    figures.at_most("change visible in etcd, median of 100", median(all.clone()), " ms", 20.0, NOISE);
    figures.at_most("change visible in etcd, worst of 100", worst(&all), " ms", 20.0, NOISE);
}

fn steady(figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let etcd = Etcd::start(dir.path());
    let daemon = beacond(&etcd, dir.path(), "--marks 0");
    let sender = Sender::new(daemon.listening());
    let urls: Vec<String> =
        (0..MEMBERS).map(|n| format!("http://10.1.{}.{}:80", n / 250, n % 250 + 1)).collect();
    let beat = || {
        for url in &urls {
            sender.announce(url, "");
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    let start = Instant::now();
    while etcd.keys(RANGE).len() < MEMBERS {
        beat();
        assert!(start.elapsed() < PATIENCE, "the log:\n{}", daemon.log().join("\n"));
    }
    figures.note("a thousand new members are there", start.elapsed().as_secs_f64(), " s");
    // Until the last look at them is over, and marks that came with the first puts have had their time.
    let settle = Instant::now();
    while settle.elapsed() < Duration::from_secs(25) {
        beat();
        std::thread::sleep(Duration::from_secs(4));
    }
    let (before, cpu, start) = (etcd.written(), daemon.cpu(), Instant::now());
    while start.elapsed() < Duration::from_secs(60) {
        beat();
        std::thread::sleep(Duration::from_secs(4));
    }
    let after = etcd.written();
    let rounds = start.elapsed().as_secs_f64() / 5.0;
    let per_round = (daemon.cpu() - cpu).as_secs_f64() * 1e3 / rounds;
    let delta = |a: u64, b: u64| f64::from(u32::try_from(b - a).unwrap_or(u32::MAX));
    figures.at_most("proposals to etcd's log in a minute", delta(before.0, after.0), "", 0.0, 1.0);
    figures.at_most("revisions of etcd in a minute", delta(before.1, after.1), "", 0.0, 1.0);
    figures.note("beacond's time for 5 s: a round, keepalives, 1000 datagrams", per_round, " ms");
}

fn beacond(etcd: &Etcd, dir: &std::path::Path, sink: &str) -> Daemon {
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --allow 10.0.0.0/8 --max-members 2000 --max-skew 5 --secret-file {} + etcd \
         --endpoint {} {sink}",
        secret_file(dir),
        etcd.url()
    );
    Daemon::spawn("info", &dir.join("control"), &args(&line))
}

/// How long `act` takes, in milliseconds.
fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e3
}
