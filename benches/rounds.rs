//! What it costs to look: CPU of beacond for one round with 1,000 members and nothing to change.
//!
//! Each row is a sink with a beacond of its own that looks every second, and no announcement meanwhile. What the
//! balancer itself takes to answer is not counted. `cargo bench --bench rounds -- apache` runs one row.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks")]

#[path = "../tests/common/mod.rs"]
mod common;
mod support;

use common::apache::Apache;
use common::caddy::Caddy;
use common::daemon::{Daemon, args, secret_file};
use common::etcd::Etcd;
use common::haproxy::Haproxy;
use common::sender::Sender;
use std::any::Any;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use support::{Figures, cpu};

const MEMBERS: usize = 1000;

/// How many rounds are put together, at least.
const ROUNDS: u32 = 20;

/// The most time until all members are there and at rest: Apache and HAProxy take them one by one.
const FILLING: Duration = Duration::from_secs(180);

/// Starts a balancer in a folder: the words of its sink, and the balancer.
type Start = fn(&Path) -> (String, Box<dyn Any>);

const ROWS: [(&str, Start); 5] = [
    ("haproxy", |dir| {
        let haproxy = Haproxy::start(dir, "");
        (format!("--socket {} --backend web", haproxy.socket.display()), Box::new(haproxy))
    }),
    ("apache", |dir| {
        // Of its own file: what is measured is the page with all of them.
        let workers = urls().fold(String::new(), |mut text, url| {
            writeln!(text, "BalancerMember {url}").expect("memory takes it");
            text
        });
        let apache = Apache::start(dir, "", &workers);
        (format!("--url {} --apache-balancer web", apache.manager()), Box::new(apache))
    }),
    ("caddy", |dir| {
        let caddy = Caddy::start(dir, r#""upstreams": []"#);
        (format!("--url http://{} --id web", caddy.admin), Box::new(caddy))
    }),
    ("etcd", |dir| {
        let etcd = Etcd::start(dir);
        (format!("--endpoint {} --marks 0", etcd.url()), Box::new(etcd))
    }),
    ("file", |dir| (format!("--format prometheus --file {}", dir.join("members").display()), Box::new(()))),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut figures = Figures::default();
    for (role, start) in ROWS {
        if wanted.is_empty() || wanted.iter().any(|name| name == role) {
            measure(role, start, &mut figures);
        }
    }
    figures.end()
}

fn measure(role: &str, start: Start, figures: &mut Figures) {
    let dir = tempfile::tempdir().expect("a folder");
    let (words, _balancer) = start(dir.path());
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 10.1.0.0/16 --timeout 0 --max-members {MEMBERS} --secret-file {} \
         + {role} --every 1 {words}",
        secret_file(dir.path())
    );
    let daemon = Daemon::spawn("info", &dir.path().join("control"), &args(&line));
    let sender = Sender::new(daemon.listening());
    for url in urls() {
        sender.announce(&url, "");
        std::thread::sleep(Duration::from_micros(100));
    }
    let begun = Instant::now();
    while !all_up(&daemon) {
        assert!(begun.elapsed() < FILLING, "{role}; the log:\n{}", daemon.log().join("\n"));
        std::thread::sleep(Duration::from_millis(200));
    }
    // A round after the last change: from here on there is none.
    std::thread::sleep(Duration::from_secs(3));
    let (used, begun) = (cpu(daemon.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(1) * ROUNDS);
    let rounds = begun.elapsed().as_secs_f64();
    let milliseconds = (cpu(daemon.pid()) - used).as_secs_f64() * 1e3;
    figures.note(&format!("{role}: CPU of a round with {MEMBERS} members"), milliseconds / rounds, " ms");
}

/// Whether the balancer has all members as it should.
fn all_up(daemon: &Daemon) -> bool {
    let status = daemon.status();
    let members = status["balancers"]["default"]["members"].as_array().cloned().unwrap_or_default();
    members.len() == MEMBERS
        && members.iter().all(|member| {
            let sinks = member["sinks"].as_object().expect("an object");
            !sinks.is_empty()
                && sinks.values().all(|sink| sink["state"] == "up" || sink["state"] == "checking")
        })
}

fn urls() -> impl Iterator<Item = String> {
    (0..MEMBERS).map(|n| format!("http://10.1.{}.{}:80", n / 250, n % 250 + 1))
}
