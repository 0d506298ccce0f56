//! The role `proxy` of the real binary: where it listens, what its access log says, and first flights for it.

use super::daemon::{Daemon, run};
use super::{PATIENCE, SECRET, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Both ways of moving bytes: every test of bytes runs with each.
pub const WAYS: [&str; 2] = ["", "--no-splice"];

/// A proxy on a port of its own; `line` is more of its options.
pub fn proxy(dir: &Path, line: &str) -> (Daemon, SocketAddr) {
    let daemon = Daemon::start(dir, &format!("proxy --listen 127.0.0.1:0 --access-log {line}"));
    let addr = daemon.proxying();
    (daemon, addr)
}

/// One line of the access log.
#[derive(Clone, Debug)]
pub struct Session(pub String);

impl Session {
    /// A field of it; empty where it is absent.
    pub fn get(&self, name: &str) -> &str {
        let fields = self.0.split(' ').filter_map(|field| field.split_once('='));
        fields.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// A field that is a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).trim_end_matches("ms").parse().unwrap_or_else(|_| panic!("{name} in {}", self.0))
    }
}

impl Daemon {
    /// The address after `listening for connections on`.
    #[track_caller]
    pub fn proxying(&self) -> SocketAddr {
        let line = self.line("listening for connections on ");
        let address =
            line.split("listening for connections on ").nth(1).and_then(|rest| rest.split(' ').next());
        address.and_then(|text| text.parse().ok()).expect("an address")
    }

    /// The access log line of the session that came from `src`, once it has ended.
    #[track_caller]
    pub fn session(&self, src: SocketAddr) -> Session {
        let (from, start) = (format!("src={src}"), Instant::now());
        loop {
            let is_it = |l: &String| l.contains(" end=") && l.split(' ').any(|word| word == from);
            if let Some(line) = self.log().into_iter().find(is_it) {
                return Session(line);
            }
            let log = || self.log().join("\n");
            assert!(start.elapsed() < PATIENCE, "no session of {src} ended; the log:\n{}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Every session that has ended so far.
    pub fn sessions(&self) -> Vec<Session> {
        self.log().into_iter().filter(|line| line.contains(" end=")).map(Session).collect()
    }

    /// Waits for the end of the session from `src` and wants this reason.
    #[track_caller]
    pub fn ended(&self, src: SocketAddr, reason: &str) -> Session {
        let session = self.session(src);
        assert_eq!(session.get("end"), reason, "{}", session.0);
        session
    }

    /// The number after `name:` in /proc/PID/status.
    pub fn proc(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a number")
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Sets its soft limit of descriptors while it runs.
    pub fn limit_descriptors(&self, count: usize) {
        let words = ["--pid", &self.pid().to_string(), &format!("--nofile={count}:")];
        assert!(Command::new("prlimit").args(words).status().unwrap().success());
    }

    /// Lets it open none beside those it has. The limit is one of numbers, and not all numbers below the highest need
    /// be in use: whoever started the tests may have left some open, far up.
    pub fn no_descriptor_left(&self) {
        let open = |number: &usize| std::fs::read_link(format!("/proc/{}/fd/{number}", self.pid())).is_ok();
        self.limit_descriptors((0..).find(|number| !open(number)).expect("a number"));
    }

    /// Waits until it has not woken for a while.
    #[track_caller]
    pub fn settled(&self) {
        let mut seen = (self.proc("voluntary_ctxt_switches"), Instant::now());
        wait_for("the daemon is at rest", || {
            let now = self.proc("voluntary_ctxt_switches");
            if now != seen.0 {
                seen = (now, Instant::now());
            }
            (seen.1.elapsed() > Duration::from_millis(200)).then_some(())
        });
    }
}

/// What `beacond TOOL` printed on its standard output.
#[track_caller]
pub fn printed(line: &str) -> String {
    let out = run(line);
    assert!(out.status.success(), "{line}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// The bytes of a vector of `tests/vectors/client_hello.json`.
#[track_caller]
pub fn hello(id: &str) -> Vec<u8> {
    vector(include_str!("../vectors/client_hello.json"), id)
}

/// The bytes of a vector of `tests/vectors/proxy_v2.json`.
#[track_caller]
pub fn header(id: &str) -> Vec<u8> {
    vector(include_str!("../vectors/proxy_v2.json"), id)
}

fn vector(file: &str, id: &str) -> Vec<u8> {
    let file: Value = serde_json::from_str(file).unwrap();
    let row = file["vectors"].as_array().unwrap().iter().find(|row| row["id"] == id).expect(id);
    unhex(row["hex"].as_str().unwrap())
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A receiver of announcements and a proxy for its balancer `web`, on ports of their own; more options of each.
pub fn balanced(dir: &Path, listen: &str, proxy: &str) -> Daemon {
    let secret = super::daemon::private_file(dir, "secret", &format!("{SECRET}\n"));
    let line = format!(
        "listen --listen 127.0.0.1:0 --allow 127.0.0.0/8 --balancer web --secret-file {secret} {listen} \
         + proxy --listen 127.0.0.1:0 --balancer web --access-log {proxy}"
    );
    Daemon::start(dir, &line)
}
