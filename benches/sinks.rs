//! How soon a change is visible in real balancers: from sending a datagram until a request through the balancer
//! shows it.
//!
//! Each row is a balancer with a beacond of its own. The balancer is asked over and over, on connections of the
//! measurement's own; one such question is the resolution, and a short rest. `cargo bench --bench sinks -- apache` runs
//! one row.
//!
//! Nobody goes before others here (`support::first`), as in other measurements: programs in Go spin for ever where
//! they cannot be put aside, and busy processes keep the kernel from carrying packets. So the worst of all shows what
//! else the machine does.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::apache::Apache;
use common::backend::Backend;
use common::caddy::Caddy;
use common::daemon::{Daemon, args, secret_file};
use common::sender::Sender;
use common::{Answer, PATIENCE, get, own_ip};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Figures, median, worst};

const CHANGES: u16 = 100;

/// Of single times among processes that share two CPUs, the worst shows the neighbours too.
const NOISE: f64 = 2.0;

/// Between two looks.
const PAUSE: Duration = Duration::from_micros(100);

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

/// Whether the balancer has this member in rotation. A backend that says who it is listens there.
type Shows = dyn Fn(SocketAddr) -> bool;

/// Whether a request comes to this backend, where no other is in rotation.
fn served(web: SocketAddr, backend: SocketAddr) -> bool {
    get(web, "/") == Answer::Http(200, backend.to_string())
}

const ROWS: &[Row] = &[
    Row {
        name: "apache",
        // Processes without threads: of those with threads (2.4.71) one crashes now and then when a member is added
        // while others of its threads have requests, and is away for up to a second.
        goal: 20.0,
        rest: Duration::ZERO,
        start: |dir| {
            let apache = Apache::start_with("prefork", dir, "", "ProxySet growth=60");
            let words = format!("apache --url {} --apache-balancer web", apache.manager());
            let web = apache.web;
            let shows = move |addr: SocketAddr| {
                let _alive = &apache;
                served(web, addr)
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
            let web = caddy.web;
            let shows = move |addr: SocketAddr| {
                let _alive = &caddy;
                served(web, addr)
            };
            (words, Box::new(shows))
        },
    },
];

fn main() -> ExitCode {
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
        while shows(addr) != there {
            std::thread::sleep(PAUSE);
            assert!(start.elapsed() < PATIENCE, "{addr}; the log:\n{}", daemon.log().join("\n"));
        }
    };
    // The first change waits for its first look.
    daemon.line("following ");
    let nobody = SocketAddr::new(own_ip().into(), 1);
    let questions: Vec<f64> = (0..CHANGES).map(|_| timed(|| _ = shows(nobody))).collect();
    figures.note(&format!("{name}: one look at it, median"), median(questions), " ms");
    let (mut came, mut left) = (Vec::new(), Vec::new());
    for _ in 0..CHANGES / 2 {
        let backend = Backend::start(own_ip());
        let (address, url) = (backend.addr, backend.url());
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
