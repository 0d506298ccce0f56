//! How soon a change is visible in a real HAProxy: from sending a datagram until HAProxy's own table shows it.
//!
//! Servers without checks, so that nothing waits for one. HAProxy is asked over and over, on connections of the
//! measurement's own; one such question is the resolution, and it keeps HAProxy's one thread busy meanwhile.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::daemon::{Daemon, args, secret_file};
use common::haproxy::{Haproxy, Server};
use common::sender::Sender;
use common::{PATIENCE, own_ip};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;
use support::{Figures, first, median, worst};

const CHANGES: u16 = 100;

/// Of single times among processes that share two CPUs, the worst shows the neighbours too.
const NOISE: f64 = 2.0;

/// Bits of HAProxy's administrative state: any way of being in maintenance or drained.
const AWAY: u32 = 0x01 | 0x08;

fn main() -> ExitCode {
    // What it starts inherits that.
    first(std::process::id(), true);
    let dir = tempfile::tempdir().expect("a folder");
    let haproxy = Haproxy::start(dir.path(), "");
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --secret-file {} + haproxy --socket {} --backend web \
         --server-options",
        secret_file(dir.path()),
        haproxy.socket.display()
    );
    let mut words = args(&line);
    words.push("pool-max-conn 50 pool-purge-delay 5s".to_owned());
    let daemon = Daemon::spawn("info", &dir.path().join("control"), &words);
    let sender = Sender::new(daemon.listening());
    let mut figures = Figures::default();

    let questions: Vec<f64> = (0..CHANGES).map(|_| timed(|| drop(haproxy.servers("web")))).collect();
    figures.note("one look at HAProxy's table, median", median(questions), " ms");

    let (mut all, mut came, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..CHANGES / 2 {
        let address = SocketAddr::new(own_ip().into(), 8000 + nth);
        let url = format!("http://{address}");
        let sees = |what: fn(&Server) -> bool| {
            let start = Instant::now();
            while !haproxy.server(address).as_ref().is_some_and(what) {
                assert!(start.elapsed() < PATIENCE, "{url}; the log:\n{}", daemon.log().join("\n"));
            }
        };
        came.push(timed(|| {
            sender.announce(&url, "");
            sees(|row| row.operational == 2 && row.admin & AWAY == 0 && row.weight > 0);
        }));
        left.push(timed(|| {
            sender.leave(&url);
            sees(|row| row.admin & AWAY != 0 || row.weight == 0);
        }));
    }
    all.extend(came.iter().chain(&left));
    figures.note("a new member is served, median of 50", median(came), " ms");
    figures.note("a goodbye takes it out, median of 50", median(left), " ms");
    figures.at_most("change visible in HAProxy, median of 100", median(all.clone()), " ms", 5.0, NOISE);
    figures.at_most("change visible in HAProxy, worst of 100", worst(&all), " ms", 5.0, NOISE);
    figures.end()
}

/// How long `act` takes, in milliseconds.
fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e3
}
