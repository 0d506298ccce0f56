//! The health check at work: a name looked up, a connection tried, a question asked, a command run, again and again,
//! one at a time. What a result means is the gate's ([`super::health`]); what follows from that is the announcer's.
//!
//! The announcer owns a [`Probe`] and forwards to it what comes in for [`KEYS`] keys. A check begins at the start and
//! then every interval, counted from start to start; one that takes longer than the interval is followed at once.

mod connection;

use super::health::{Change, Check, Gate, HealthConfig};
use crate::clock::Mono;
use crate::config::values::show_duration;
use crate::http_client::{HttpClient, Limits, Outcome};
use crate::http1::{HttpUrl, Request};
use crate::process::{self, Child};
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Job, Key};
use crate::wheel::TimerId;
use connection::Connection;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// How many keys a probe uses, from the one it is given.
pub const KEYS: usize = 3;

/// A running health check.
#[derive(Debug)]
pub struct Probe {
    config: HealthConfig,
    gate: Gate,
    keys: Keys,
    /// Who asks, where a server is to be asked.
    client: Option<HttpClient>,
    stage: Stage,
    started: Mono,
    deadline: Option<TimerId>,
    next: Option<TimerId>,
    /// A lookup is under way, perhaps one that an earlier check gave up waiting for.
    looking_up: bool,
    /// Commands that were killed and have not ended yet.
    killed: Vec<Child>,
    /// Why the last check failed, if it did.
    failing: Option<String>,
}

/// The announcer's numbers for what a probe waits for. Timers, sources and jobs may share one.
#[derive(Clone, Copy, Debug)]
struct Keys {
    lookup: Key,
    next: Key,
    deadline: Key,
    socket: Key,
    http: Key,
    pipes: process::Keys,
}

impl From<Key> for Keys {
    fn from(Key(first): Key) -> Keys {
        Keys {
            lookup: Key(first),
            next: Key(first),
            deadline: Key(first + 1),
            socket: Key(first),
            http: Key(first + 2),
            pipes: process::Keys { input: Key(first + 1), errors: Key(first + 2) },
        }
    }
}

/// How far the check under way has come.
#[derive(Debug)]
enum Stage {
    /// Between two checks.
    Idle,
    LookingUp,
    Connecting {
        connection: Connection,
        others: Vec<SocketAddr>,
    },
    /// The client asks.
    Asking,
    Running(Child),
}

/// What came of a step: nothing yet, or the check's result.
type Step = Option<Result<(), String>>;

impl Probe {
    /// A probe that has not started, behind a closed gate. The keys from `first_key` are its own.
    #[must_use]
    pub fn new(config: HealthConfig, first_key: Key) -> Probe {
        let gate = Gate::new(config.rise, config.fall);
        let keys = Keys::from(first_key);
        let client = match &config.check {
            // The probe has a deadline of its own for all of it, and nothing of an answer matters but its status.
            Check::Http(url) => {
                let limits = Limits { connect: config.timeout, answer: config.timeout, body: 0 };
                Some(HttpClient::new(url, limits, keys.http))
            }
            Check::Tcp { .. } | Check::Exec(_) => None,
        };
        Probe {
            config,
            gate,
            keys,
            client,
            stage: Stage::Idle,
            started: Mono::ZERO,
            deadline: None,
            next: None,
            looking_up: false,
            killed: Vec::new(),
            failing: None,
        }
    }

    /// Whether to announce.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    /// At a reload: the gate stays as it was, so that nobody is announced less for it; what was killed is awaited.
    pub fn inherit(&mut self, old: Probe) {
        self.gate.inherit(&old.gate);
        self.killed = old.killed;
    }

    /// Begins the first check.
    pub fn start(&mut self, cx: &mut Cx<'_>) -> Option<Change> {
        self.begin(cx)
    }

    /// A source with one of its keys is ready.
    pub fn ready(&mut self, key: Key, cx: &mut Cx<'_>) -> Option<Change> {
        let step = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Connecting { connection, others } if key == self.keys.socket => {
                self.connecting(connection, others, cx)
            }
            Stage::Asking if key == self.keys.http => {
                self.stage = Stage::Asking;
                self.hear(HttpClient::ready, cx)
            }
            Stage::Running(mut child) => {
                child.ready(key, cx, &mut |line| self.log_line(line));
                self.go_on(Stage::Running(child))
            }
            other => self.go_on(other),
        };
        self.conclude(step, cx)
    }

    /// A timer with one of its keys is due.
    pub fn timer(&mut self, key: Key, cx: &mut Cx<'_>) -> Option<Change> {
        if key == self.keys.next {
            self.next = None;
            return self.begin(cx);
        }
        if key == self.keys.http {
            let step = self.hear(HttpClient::timer, cx);
            return self.conclude(step, cx);
        }
        if key != self.keys.deadline {
            return None;
        }
        self.deadline = None;
        let what = match &self.stage {
            Stage::Idle => return None,
            Stage::LookingUp => "name not resolved",
            Stage::Connecting { .. } => "no connection",
            Stage::Asking => "no answer",
            Stage::Running(_) => "still running and killed",
        };
        let reason = format!("{what} after {}", show_duration(self.config.timeout));
        self.conclude(Some(Err(reason)), cx)
    }

    /// The lookup it asked for is done.
    pub fn resolved(&mut self, found: io::Result<Vec<SocketAddr>>, cx: &mut Cx<'_>) -> Option<Change> {
        if self.client.is_some() {
            let step = self.hear(|client, cx| client.done(Done::Resolved(found), cx), cx);
            return self.conclude(step, cx);
        }
        self.looking_up = false;
        if !matches!(self.stage, Stage::LookingUp) {
            return None;
        }
        let step = match found {
            Ok(found) => self.connect(found, cx),
            Err(e) => Some(Err(plain(&e))),
        };
        self.conclude(step, cx)
    }

    /// A child of this process has ended, perhaps the check's.
    pub fn child_exited(&mut self, cx: &mut Cx<'_>) -> Option<Change> {
        self.killed.retain_mut(|child| child.exited(cx, &mut |_| {}).is_none());
        let Stage::Running(child) = &mut self.stage else { return None };
        let mut lines = Vec::new();
        let exit = child.exited(cx, &mut |line| lines.push(line.to_owned()))?;
        lines.iter().for_each(|line| self.log_line(line));
        self.stage = Stage::Idle;
        let result = if exit.success() { Ok(()) } else { Err(exit.to_string()) };
        self.conclude(Some(result), cx)
    }

    /// Gives up the check under way and begins no other; `true` when nothing is left to wait for.
    pub fn drain(&mut self, cx: &mut Cx<'_>) -> bool {
        self.stop(cx);
        self.killed.is_empty()
    }

    /// Gives up the check under way and begins no other.
    pub fn stop(&mut self, cx: &mut Cx<'_>) {
        self.give_up(cx);
        if let Some(timer) = self.next.take() {
            cx.cancel(timer);
        }
    }

    fn begin(&mut self, cx: &mut Cx<'_>) -> Option<Change> {
        self.started = cx.now.mono;
        self.deadline = Some(cx.arm(self.keys.deadline, cx.now.mono.after(self.config.timeout)));
        let step = match &self.config.check {
            Check::Tcp { host, port } => match host.parse::<IpAddr>() {
                Ok(ip) => self.connect(vec![SocketAddr::new(ip, *port)], cx),
                Err(_) => self.look_up(host.clone(), *port, cx),
            },
            Check::Http(_) => self.ask(cx),
            Check::Exec(argv) => self.run(argv.clone(), cx),
        };
        self.conclude(step, cx)
    }

    /// The check goes on.
    fn go_on(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        None
    }

    fn look_up(&mut self, host: String, port: u16, cx: &mut Cx<'_>) -> Step {
        if !self.looking_up && cx.offload(self.keys.lookup, Job::Resolve { host, port }).is_err() {
            return Some(Err("too many names to resolve".to_owned()));
        }
        self.looking_up = true;
        self.go_on(Stage::LookingUp)
    }

    fn run(&mut self, argv: Vec<String>, cx: &mut Cx<'_>) -> Step {
        if !self.killed.is_empty() {
            return Some(Err("the last run was killed and has not ended".to_owned()));
        }
        let command = process::Command { argv: &argv, env: &[], input: Vec::new() };
        match Child::spawn(command, self.keys.pipes, cx) {
            Ok(child) => self.go_on(Stage::Running(child)),
            Err(e) => Some(Err(plain(&e))),
        }
    }

    /// Tries the addresses one after the other.
    fn connect(&mut self, addresses: Vec<SocketAddr>, cx: &mut Cx<'_>) -> Step {
        let mut others = addresses;
        others.reverse();
        let mut error = io::Error::from(io::ErrorKind::NotFound);
        while let Some(address) = others.pop() {
            match Connection::open(address, self.keys.socket, cx) {
                Ok(connection) => return self.go_on(Stage::Connecting { connection, others }),
                Err(e) => error = e,
            }
        }
        Some(Err(plain(&error)))
    }

    /// A connection has been made, or failed, or neither yet.
    fn connecting(&mut self, connection: Connection, mut others: Vec<SocketAddr>, cx: &mut Cx<'_>) -> Step {
        let failed = match connection.established() {
            None => return self.go_on(Stage::Connecting { connection, others }),
            Some(Ok(())) => None,
            Some(Err(e)) => Some(e),
        };
        connection.close(cx);
        match failed {
            None => Some(Ok(())),
            Some(error) if others.is_empty() => Some(Err(plain(&error))),
            Some(_) => {
                others.reverse();
                self.connect(others, cx)
            }
        }
    }

    /// Has the client ask.
    fn ask(&mut self, cx: &mut Cx<'_>) -> Step {
        self.stage = Stage::Asking;
        let (Check::Http(url), Some(client)) = (&self.config.check, &mut self.client) else { return None };
        let outcome = client.ask_status(&question(url), cx);
        judge(outcome.unwrap_or_else(|bad| Outcome::Failed(bad.to_string())))
    }

    /// Lets the client go on.
    fn hear(&mut self, go_on: impl FnOnce(&mut HttpClient, &mut Cx<'_>) -> Outcome, cx: &mut Cx<'_>) -> Step {
        judge(go_on(self.client.as_mut()?, cx))
    }

    /// With a result the check is over: counts it and arms the next check.
    fn conclude(&mut self, step: Step, cx: &mut Cx<'_>) -> Option<Change> {
        let result = step?;
        self.give_up(cx);
        self.next = Some(cx.arm(self.keys.next, self.started.after(self.config.interval).max(cx.now.mono)));
        let healthy = result.is_ok();
        let check = &self.config.check;
        match (result, &self.failing) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                log::info!(target: "announce", "check {check} passes again");
                self.failing = None;
            }
            (Err(reason), Some(last)) if reason == *last => {}
            (Err(reason), _) => {
                log::warn!(target: "announce", "check {check} fails: {reason}");
                self.failing = Some(reason);
            }
        }
        self.gate.note(healthy)
    }

    /// Ends the check under way, wherever it is.
    fn give_up(&mut self, cx: &mut Cx<'_>) {
        if let Some(timer) = self.deadline.take() {
            cx.cancel(timer);
        }
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Connecting { connection, .. } => connection.close(cx),
            Stage::Asking => self.client.iter_mut().for_each(|client| client.close(cx)),
            Stage::Running(mut child) => {
                child.kill();
                child.unwatch(cx);
                self.killed.push(child);
            }
            Stage::Idle | Stage::LookingUp => {}
        }
    }

    fn log_line(&self, line: &str) {
        log::debug!(target: "announce", "check {}: {line}", self.config.check);
    }
}

/// The request of a check.
fn question(url: &HttpUrl) -> Request<'_> {
    Request {
        method: "GET",
        target: &url.target,
        host: &url.authority,
        headers: &[("User-Agent", "beacond"), ("Accept", "*/*")],
        body: None,
        close: true,
    }
}

/// What an answer says about the health of who gave it.
fn judge(outcome: Outcome) -> Step {
    match outcome {
        Outcome::Pending => None,
        Outcome::Answer(response) if (200..400).contains(&response.status) => Some(Ok(())),
        Outcome::Answer(response) => Some(Err(format!("status {}", response.status))),
        Outcome::Failed(why) => Some(Err(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_that_reads_makes_a_request() {
        for text in
            ["http://a", "http://[::1]:81/x?y=%20&z", "http://a_b.c-d:/?\"<>", "http://10.0.0.1/~`^{|}"]
        {
            let url = HttpUrl::parse(text).unwrap();
            let mut sent = Vec::new();
            question(&url).write(&mut sent).unwrap();
            let sent = String::from_utf8(sent).unwrap();
            assert!(sent.starts_with(&format!("GET {} HTTP/1.1\r\nHost: {}\r\n", url.target, url.authority)));
            assert!(sent.contains("Connection: close\r\n") && sent.ends_with("\r\n\r\n"));
        }
    }
}
