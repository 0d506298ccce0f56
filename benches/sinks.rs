//! How soon a change is visible in real balancers: from sending a datagram until the balancer itself shows it.
//!
//! Each row is a balancer with a beacond of its own. The balancer is asked over and over, on connections of the
//! measurement's own; one such question is the resolution. `cargo bench --bench sinks -- apache` runs one row.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::apache::Apache;
use common::caddy::Caddy;
use common::daemon::{Daemon, args, secret_file};
use common::sender::Sender;
use common::{PATIENCE, own_ip};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Figures, first, median, worst};

const CHANGES: u16 = 100;

/// Of single times among processes that share two CPUs, the worst shows the neighbours too.
const NOISE: f64 = 2.0;

/// A balancer under measurement.
struct Row {
    name: &'static str,
    /// The most milliseconds that a change may take.
    goal: f64,
    /// How long to leave it alone between two changes.
    rest: Duration,
    /// Starts it in a folder; the words of its sink, and whether it has a member as it should.
    start: fn(&Path) -> (String, Box<Shows>),
}

/// Whether the balancer has this member in rotation; `None` while that cannot be said.
type Shows = dyn Fn(SocketAddr) -> Option<bool>;

const ROWS: &[Row] = &[
    Row {
        name: "apache",
        goal: 20.0,
        rest: Duration::ZERO,
        start: |dir| {
            let apache = Apache::start(dir, "", "ProxySet growth=60");
            let words = format!("apache --url {} --apache-balancer web", apache.manager());
            let shows = move |addr: SocketAddr| {
                let member = apache.member(&format!("http://{addr}"));
                Some(member.is_some_and(|m| !m.status.contains("Dis") && !m.status.contains("Drn")))
            };
            (words, Box::new(shows))
        },
    },
    Row {
        name: "caddy",
        goal: 20.0,
        // Beyond the least gap: what is measured is not how changes are put together.
        rest: Duration::from_millis(250),
        start: |dir| {
            let caddy = Caddy::start(dir, r#""upstreams": []"#);
            let words = format!("caddy --url http://{} --id web", caddy.admin);
            let shows = move |addr: SocketAddr| {
                let dial = addr.to_string();
                caddy.upstreams().map(|list| list.iter().any(|entry| entry["dial"] == *dial))
            };
            (words, Box::new(shows))
        },
    },
];

fn main() -> ExitCode {
    // What it starts inherits that.
    first(std::process::id(), true);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut figures = Figures::default();
    for row in ROWS.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|name| name == row.name)) {
        measure(row, &mut figures);
    }
    figures.end()
}

fn measure(row: &Row, figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let (sink, shows) = (row.start)(dir.path());
    let secret = secret_file(dir.path());
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --timeout 0 --secret-file {secret} + {sink}"
    );
    let daemon = Daemon::spawn("info", &dir.path().join("control"), &args(&line));
    let sender = Sender::new(daemon.listening());
    let name = row.name;
    let wait = |addr: SocketAddr, there: bool| {
        let start = Instant::now();
        while shows(addr) != Some(there) {
            assert!(start.elapsed() < PATIENCE, "{addr}; the log:\n{}", daemon.log().join("\n"));
        }
    };
    // The first change waits for its first look.
    daemon.line("following ");
    let address = |nth: u16| SocketAddr::new(own_ip().into(), 8_000 + nth);
    let questions: Vec<f64> = (0..CHANGES).map(|_| timed(|| _ = shows(address(0)))).collect();
    figures.note(&format!("{name}: one look at it, median"), median(questions), " ms");
    let (mut came, mut left) = (Vec::new(), Vec::new());
    for nth in 0..CHANGES / 2 {
        let address = address(nth);
        let url = format!("http://{address}");
        std::thread::sleep(row.rest);
        came.push(timed(|| {
            sender.announce(&url, "");
            wait(address, true);
        }));
        std::thread::sleep(row.rest);
        left.push(timed(|| {
            sender.leave(&url);
            wait(address, false);
        }));
    }
    let all: Vec<f64> = came.iter().chain(&left).copied().collect();
    figures.note(&format!("{name}: a new member is there, median of 50"), median(came), " ms");
    figures.note(&format!("{name}: a goodbye takes it out, median of 50"), median(left), " ms");
    let what = |which: &str| format!("{name}: change visible, {which} of {CHANGES}");
    figures.at_most(&what("median"), median(all.clone()), " ms", row.goal, NOISE);
    figures.at_most(&what("worst"), worst(&all), " ms", row.goal, NOISE);
}

/// How long `act` takes, in milliseconds.
fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    start.elapsed().as_secs_f64() * 1e3
}
