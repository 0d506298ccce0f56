//! The sink at work: carries the machine's lines to HAProxy and its replies back, and shows what came of
//! them.
//!
//! One exchange at a time, with a deadline for connecting and one for the reply; between them a timer. Every
//! decision is the machine's.

use super::exchange::{Exchange, Progress};
use super::machine::{Machine, Todo};
use super::notes::State;
use super::{Config, Door, accept_scheme};
use crate::clock::Mono;
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Job, Key, Ready, Service};
use crate::sinks::address;
use crate::sinks::follow::{Follow, log_news};
use crate::url::Url;
use crate::views::ViewState;
use crate::wheel::TimerId;
use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A backend of HAProxy that follows a balancer.
pub struct Haproxy {
    config: Config,
    machine: Machine,
    task: Task,
    timer: Option<TimerId>,
    /// Where the door's name led; the first is tried next.
    found: Vec<SocketAddr>,
    table: Follow<SocketAddr>,
}

/// What is under way.
enum Task {
    /// Nothing; the timer says when to look again.
    Rest,
    /// The door's name is being looked up, for this line.
    Resolve(String),
    /// A line is being exchanged; first the connection is awaited, then the reply.
    Exchange { exchange: Exchange, awaits: Option<Wait> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Connection,
    Reply,
}

impl Haproxy {
    /// A sink that has not started.
    #[must_use]
    pub fn new(config: Config) -> Haproxy {
        Haproxy {
            machine: Machine::new(config.site.clone(), config.pace),
            config,
            task: Task::Rest,
            timer: None,
            found: Vec::new(),
            table: Follow::default(),
        }
    }

    /// Does what the machine says, until there is something to wait for.
    fn proceed(&mut self, cx: &mut Cx<'_>) {
        while matches!(self.task, Task::Rest) {
            let (name, config) = (self.name(), &self.config);
            let place = |url: &Url| accept_scheme(&config.site, url.scheme()).and_then(|()| address(url));
            let changed = self.table.refresh(&name, &config.balancer, place, cx);
            if changed {
                // Whoever looks first, this or `members_changed`: the machine must hear of it.
                self.machine.members_changed(cx.now.mono);
            }
            let todo = self.machine.next(self.table.want(), cx.now.mono);
            self.tell();
            if self.machine.views_moved() || changed {
                let view = |addr: &SocketAddr| {
                    let (state, error) = self.machine.view(*addr);
                    (view_state(state), error)
                };
                self.table.show(view, cx);
            }
            match todo {
                Todo::Send(line) => self.send(line, cx),
                Todo::Wait(at) => return cx.rearm(&mut self.timer, TIMER, at),
            }
        }
    }

    fn send(&mut self, line: String, cx: &mut Cx<'_>) {
        let level = if line.starts_with("show") { log::Level::Trace } else { log::Level::Debug };
        log::log!(target: "haproxy", level, "{}: sends {line}", self.name());
        let begun = match (&self.config.door, self.found.first()) {
            (Door::Path(path), _) => Exchange::over_unix(path, &line, SOCKET, cx),
            (Door::Addr(addr), _) | (Door::Name(..), Some(addr)) => {
                Exchange::over_tcp(*addr, &line, SOCKET, cx)
            }
            (Door::Name(host, port), None) => {
                match cx.offload(RESOLVED, Job::Resolve { host: host.clone(), port: *port }) {
                    Ok(()) => self.task = Task::Resolve(line),
                    Err(_) => self.fail("the resolver is busy", cx),
                }
                return;
            }
        };
        match begun {
            Ok(exchange) => {
                self.task = Task::Exchange { exchange, awaits: None };
                self.advance(cx);
            }
            Err(why) => self.fail(&why, cx),
        }
    }

    /// Goes on with the exchange under way.
    fn advance(&mut self, cx: &mut Cx<'_>) {
        let Task::Exchange { exchange, awaits } = &mut self.task else { return };
        let progress = match exchange.advance(cx.scratch) {
            Ok(progress) => progress,
            Err(why) => return self.fail(&why, cx),
        };
        let (wait, patience) = match progress {
            Progress::Done => {
                let random = cx.random();
                self.machine.answered(exchange.reply(), cx.now.mono, random);
                return self.rest(cx);
            }
            Progress::Connecting => (Wait::Connection, CONNECT_TIME),
            Progress::Waiting | Progress::More => (Wait::Reply, REPLY_TIME),
        };
        if awaits.replace(wait) != Some(wait) {
            cx.rearm(&mut self.timer, TIMER, cx.now.mono.after(patience));
        }
        if progress == Progress::More {
            cx.again(SOCKET);
        }
    }

    /// What was under way has failed.
    fn fail(&mut self, why: &str, cx: &mut Cx<'_>) {
        let random = cx.random();
        self.machine.failed(why, cx.now.mono, random);
        if !self.found.is_empty() {
            self.found.remove(0);
        }
        self.rest(cx);
    }

    /// Ends what was under way.
    fn rest(&mut self, cx: &mut Cx<'_>) {
        if let Task::Exchange { exchange, .. } = std::mem::replace(&mut self.task, Task::Rest) {
            exchange.close(cx);
        }
        cx.rearm(&mut self.timer, TIMER, Mono::NEVER);
    }

    /// Prints the machine's news.
    fn tell(&mut self) {
        let name = self.name();
        log_news("haproxy", &name, self.machine.news());
    }
}

impl Service for Haproxy {
    fn name(&self) -> String {
        self.config.name.clone()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.proceed(cx);
        Ok(())
    }

    fn ready(&mut self, _key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        self.advance(cx);
        self.proceed(cx);
    }

    fn timer(&mut self, _key: Key, cx: &mut Cx<'_>) {
        self.timer = None;
        match self.task {
            Task::Exchange { awaits: Some(Wait::Reply), .. } => {
                self.fail("HAProxy did not answer within 2 s", cx);
            }
            Task::Exchange { .. } => self.fail("HAProxy could not be reached within 1 s", cx),
            Task::Rest | Task::Resolve(_) => {}
        }
        self.proceed(cx);
    }

    fn done(&mut self, _key: Key, result: Done, cx: &mut Cx<'_>) {
        if let (Done::Resolved(result), Task::Resolve(line)) = (result, &mut self.task) {
            let line = std::mem::take(line);
            self.task = Task::Rest;
            match result {
                Ok(found) => {
                    self.found = found;
                    self.send(line, cx);
                }
                Err(e) => self.fail(&format!("cannot resolve HAProxy's host: {}", plain(&e)), cx),
            }
            self.proceed(cx);
        }
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        if self.table.is_behind(&self.config.balancer, cx) {
            self.machine.members_changed(cx.now.mono);
            self.proceed(cx);
        }
    }

    fn inherit(&mut self, old: Box<dyn Any>) {
        if let Ok(old) = old.downcast::<Haproxy>()
            && old.config.door == self.config.door
        {
            self.machine = old.machine;
            self.machine.reconfigure(self.config.site.clone(), self.config.pace);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.rest(cx);
        self.table.withdraw(cx);
    }
}

fn view_state(state: State) -> ViewState {
    match state {
        State::Up => ViewState::Up,
        State::Checking => ViewState::Checking,
        State::Draining => ViewState::Draining,
        State::Operator => ViewState::Operator,
        State::Foreign | State::Refused => ViewState::Refused,
        State::Absent | State::Failing | State::Down => ViewState::Down,
    }
}

const SOCKET: Key = Key(0);
const TIMER: Key = Key(1);
const RESOLVED: Key = Key(2);

const CONNECT_TIME: Duration = Duration::from_secs(1);
const REPLY_TIME: Duration = Duration::from_secs(2);
