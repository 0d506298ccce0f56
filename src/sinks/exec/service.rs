//! The sink at work: looks at the table when it has changed, runs the command, waits for its end.

use super::Config;
use super::deliveries::{Deliveries, Delivery, Event, Level, Next};
use crate::bytes::LogGate;
use crate::clock::{Mono, Seconds};
use crate::config::values::show_duration;
use crate::members::{BalancerId, Member, MemberId, State};
use crate::process::{self, Child, Command};
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Key, PATIENCE, Ready, Service};
use crate::shared::Shared;
use crate::url::{Host, Url};
use crate::views::{SinkId, ViewState};
use crate::wheel::TimerId;
use std::any::Any;
use std::fmt::Write;
use std::io;
use std::time::Duration;

/// The sink.
pub struct Exec {
    config: Config,
    deliveries: Deliveries,
    balancer: Option<BalancerId>,
    sink: Option<SinkId>,
    /// The balancer's revision at the last look.
    seen: Option<u64>,
    run: Option<Run>,
    deadline: Option<TimerId>,
    retry: Option<TimerId>,
    complaints: LogGate,
    draining: bool,
}

/// A command that runs.
struct Run {
    child: Child,
    deadline: Mono,
    killed: bool,
}

impl Exec {
    /// A sink that has not started.
    #[must_use]
    pub fn new(config: Config) -> Exec {
        Exec {
            config,
            deliveries: Deliveries::default(),
            balancer: None,
            sink: None,
            seen: None,
            run: None,
            deadline: None,
            retry: None,
            complaints: LogGate::new(Duration::from_secs(1)),
            draining: false,
        }
    }

    /// Takes in the table, if it has changed.
    fn look(&mut self, cx: &mut Cx<'_>) {
        let Some(balancer) = self.balancer else { return };
        let members = &cx.shared.members;
        let revision = members.revision(balancer);
        if self.seen.replace(revision) == Some(revision) {
            return;
        }
        let levels: Vec<_> = members.members(balancer).map(|(_, m)| (m.url_text(), level(m))).collect();
        let lost = self.deliveries.observe(levels.iter().map(|(url, level)| (url.as_ref(), *level)));
        if lost > 0 {
            log::error!(target: "exec", "{}: too many changes undelivered, {lost} forgotten member(s) given up",
                self.config.name);
        }
        self.show(None, cx);
    }

    /// Runs the command if something is due and it does not run yet.
    fn step(&mut self, cx: &mut Cx<'_>) {
        if let Some(timer) = self.retry.take() {
            cx.cancel(timer);
        }
        if self.draining || self.run.is_some() {
            return;
        }
        match self.deliveries.next(cx.now.mono) {
            Next::Run(delivery) => self.deliver(&delivery, cx),
            Next::Wait(until) => self.retry = Some(cx.arm(RETRY, until)),
            Next::Idle => {}
        }
    }

    fn deliver(&mut self, delivery: &Delivery, cx: &mut Cx<'_>) {
        let balancer = self.balancer.filter(|&b| cx.shared.members.settled(b, cx.now.mono));
        let (host, port) = host_and_port(&delivery.url);
        let weight = delivery.level.weight.to_string();
        let env = [
            ("BEACOND_EVENT", delivery.level.event.word()),
            ("BEACOND_BALANCER", &self.config.balancer),
            ("BEACOND_URL", &delivery.url),
            ("BEACOND_HOST", &host),
            ("BEACOND_PORT", &port),
            ("BEACOND_WEIGHT", &weight),
            ("BEACOND_SETTLED", if balancer.is_some() { "1" } else { "0" }),
        ];
        let command = Command { argv: &self.config.command, env: &env, input: list(&self.deliveries) };
        match Child::spawn(command, PIPES, cx) {
            Ok(child) => {
                let deadline = cx.now.mono.after(self.config.timeout);
                self.deadline = Some(cx.arm(DEADLINE, deadline));
                self.run = Some(Run { child, deadline, killed: false });
            }
            Err(e) => {
                // It would be the same for every other member now; they wait with this one.
                let again = self.conclude(Err(format!("cannot run: {}", plain(&e))), cx);
                self.retry = again.map(|at| cx.arm(RETRY, at));
            }
        }
    }

    /// The delivery under way has ended. Returns when it is tried again, if it is.
    fn conclude(&mut self, result: Result<(), String>, cx: &mut Cx<'_>) -> Option<Mono> {
        let Delivery { url, level } = self.deliveries.running()?.clone();
        let told = format!("{} {url}", level.event.word());
        let error = result.clone().err();
        let again = self.deliveries.finished(result, cx.now.mono, cx.random());
        match (error, again) {
            (Some(error), Some(at)) => {
                let wait = Seconds(at.since(cx.now.mono));
                if let Some(n) = self.complaints.pass(cx.now.mono) {
                    let more = if n > 1 {
                        format!(" ({n} failures since the last such line)")
                    } else {
                        String::new()
                    };
                    log::warn!(target: "exec", "{}: {told}: {error}; again in {wait:.1} s{more}", self.config.name);
                }
            }
            _ => log::debug!(target: "exec", "{}: {told}: delivered", self.config.name),
        }
        self.show(Some(&url), cx);
        again
    }

    /// Writes the views of all members, or of one.
    fn show(&self, only: Option<&str>, cx: &mut Cx<'_>) {
        let (Some(balancer), Some(sink)) = (self.balancer, self.sink) else { return };
        let Shared { members, views, .. } = &mut *cx.shared;
        let mut show = |id: MemberId, url: &str| {
            let (told, error) = self.deliveries.told(url);
            let state = match told.map(|level| level.event) {
                Some(Event::Up) => ViewState::Up,
                Some(_) => ViewState::Down,
                None => ViewState::Checking,
            };
            views.set(sink, id, state, error);
        };
        match only {
            Some(url) => {
                if let Some(id) = members.lookup(balancer, url.as_bytes()) {
                    show(id, url);
                }
            }
            None => members.members(balancer).for_each(|(id, member)| show(id, &member.url_text())),
        }
    }
}

impl Service for Exec {
    fn name(&self) -> String {
        format!("exec:{}", self.config.name)
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.balancer = cx.shared.members.find(&self.config.balancer);
        // Another section may have had this name until now, and is still to withdraw.
        let name = self.name();
        self.sink = self.balancer.map(|b| cx.shared.views.take(&name, b));
        if let Some(run) = &mut self.run {
            run.child.watch(PIPES, cx)?;
            self.deadline = Some(cx.arm(DEADLINE, run.deadline));
        }
        self.look(cx);
        self.step(cx);
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let name = &self.config.name;
        if let Some(run) = &mut self.run {
            run.child.ready(key, cx, &mut |line| log_line(name, line));
        }
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        match (key, &mut self.run) {
            (DEADLINE, Some(run)) => {
                self.deadline = None;
                run.killed = true;
                run.child.kill();
            }
            (RETRY, _) => {
                self.retry = None;
                self.step(cx);
            }
            _ => {}
        }
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        self.look(cx);
        self.step(cx);
    }

    fn child_exited(&mut self, cx: &mut Cx<'_>) {
        let name = &self.config.name;
        let Some(run) = &mut self.run else { return };
        let Some(exit) = run.child.exited(cx, &mut |line| log_line(name, line)) else { return };
        let result = match run.killed {
            true => Err(format!("killed after {}", show_duration(self.config.timeout))),
            false if exit.success() => Ok(()),
            false => Err(exit.to_string()),
        };
        self.run = None;
        if let Some(timer) = self.deadline.take() {
            cx.cancel(timer);
        }
        self.conclude(result, cx);
        self.step(cx);
    }

    fn inherit(&mut self, old: Box<dyn Any>) {
        let Ok(old) = old.downcast::<Exec>() else { return };
        // A run goes on: to begin another beside it would break the promise of one at a time.
        self.run = old.run;
        if old.config.balancer == self.config.balancer {
            self.deliveries = old.deliveries;
            self.deliveries.restart();
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if let Some(run) = &mut self.run {
            run.child.unwatch(cx);
            if self.draining {
                log::warn!(target: "exec", "{}: killed: the program ends", self.config.name);
            }
        }
        if let Some(sink) = self.sink.take() {
            cx.shared.views.remove(sink);
        }
    }

    /// Waits for the command that runs, and begins no other: who is up is delivered again at the next start.
    fn drain(&mut self, _cx: &mut Cx<'_>) -> bool {
        self.draining = true;
        self.run.is_none()
    }

    fn patience(&self) -> Duration {
        if self.run.is_some() { self.config.timeout.max(PATIENCE) } else { PATIENCE }
    }
}

fn level(member: &Member) -> Level {
    let event = match member.state() {
        State::Up => Event::Up,
        State::Down => Event::Down,
        State::Left => Event::Left,
    };
    Level { event, weight: member.weight() }
}

/// The parts of a member's url for the environment. Members' urls have been admitted; another would have no parts.
fn host_and_port(url: &str) -> (String, String) {
    match Url::parse(url.as_bytes()) {
        Ok(url) => {
            let host = match url.host() {
                Host::Ip(ip) => ip.to_string(),
                Host::Name(name) => name.to_owned(),
            };
            (host, url.port().to_string())
        }
        Err(_) => (String::new(), String::new()),
    }
}

/// What the command reads: who is up, one a line.
fn list(deliveries: &Deliveries) -> Vec<u8> {
    let mut text = String::new();
    for (url, weight) in deliveries.up() {
        let _ = writeln!(text, "{url} {weight}");
    }
    text.into_bytes()
}

fn log_line(name: &str, line: &str) {
    log::info!(target: "exec", "{name}: {line}");
}

const DEADLINE: Key = Key(0);
const RETRY: Key = Key(1);
const PIPES: process::Keys = process::Keys { input: Key(0), errors: Key(1) };
