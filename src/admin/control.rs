//! The control socket as a service: bounded clients, bounded lines, bounded patience.
//!
//! A client that never sends, or never reads, holds one of a few places until its time is up and does no other
//! harm. What requests mean is in `request`; what the report says, in `status`; how a client reads and writes, in
//! `connection`.

use super::connection::{Asked, Client};
use super::request::Request;
use super::status;
use crate::bytes::LogGate;
use crate::clock::Mono;
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Form, Key, Ready, Registration, Service, Socket, SocketSpec};
use crate::taps::Filter;
use crate::wheel::TimerId;
use log::LevelFilter;
use mio::Interest;
use mio::net::{UnixListener, UnixStream};
use slab::Slab;
use std::any::Any;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Clients at a time; one more is turned away.
const CLIENTS: usize = 8;
/// How long a client may take from its connection, or from the end of its trace, to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to try again after the process ran out of descriptors.
const BREATH: Duration = Duration::from_millis(200);
/// Between two lines about that.
const COMPLAINTS: Duration = Duration::from_secs(1);

const LISTENER: Key = Key(0);
const QUIET_AGAIN: Key = Key(1);
const FIRST_CLIENT: usize = 2;

/// What a reload says of options that it does not take.
pub const LATE: &str =
    "control, state, user, pid-file and log-stamp change at the next start, not at a reload";

/// What the control socket must know of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// What a timed change of the log level returns to.
    pub level: LevelFilter,
    /// Whether anybody carries sessions, so that there is something to trace.
    pub carries: bool,
    /// Whether options were changed that only a start takes.
    pub late: bool,
}

/// The control socket.
pub struct Control {
    path: PathBuf,
    facts: Facts,
    listener: Option<(UnixListener, Registration)>,
    clients: Slab<Client>,
    quiet_again: Option<TimerId>,
    /// Out of descriptors: when to accept again.
    breath: Option<TimerId>,
    complaints: LogGate,
}

impl Control {
    /// A control socket at `path`.
    #[must_use]
    pub fn new(path: PathBuf, facts: Facts) -> Control {
        Control {
            path,
            facts,
            listener: None,
            clients: Slab::new(),
            quiet_again: None,
            breath: None,
            complaints: LogGate::new(COMPLAINTS),
        }
    }

    fn spec(&self) -> SocketSpec {
        SocketSpec::Unix(self.path.clone())
    }

    fn accept(&mut self, cx: &mut Cx<'_>) {
        loop {
            let Some((listener, _)) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => self.welcome(stream, cx),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    // Out of descriptors or memory: whoever waits in the backlog makes no new event.
                    if self.complaints.pass(cx.now.mono).is_some() {
                        log::warn!(target: "control", "cannot accept: {}", plain(&e));
                    }
                    if self.breath.is_none() {
                        self.breath = Some(cx.arm(LISTENER, cx.now.mono.after(BREATH)));
                    }
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: UnixStream, cx: &mut Cx<'_>) {
        if self.clients.len() >= CLIENTS {
            let _ = stream.write(b"error too many clients\n");
            return;
        }
        let key = Key(FIRST_CLIENT + self.clients.vacant_key());
        let interest = Interest::READABLE | Interest::WRITABLE;
        let Ok(registration) = cx.register(&mut stream, key, interest) else { return };
        let timer = cx.arm(key, cx.now.mono.after(PATIENCE));
        self.clients.insert(Client::new(stream, registration, timer));
    }

    fn serve(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(client) = self.clients.get_mut(at) else { return };
        match client.asked() {
            Asked::NotYet => return,
            Asked::Over => return self.close(at, cx),
            Asked::Line(line) => {
                if let Some(reply) = self.obey(&line, at, cx)
                    && let Some(client) = self.clients.get_mut(at)
                {
                    client.say(reply);
                }
            }
            Asked::Before => {}
        }
        self.tell(at, cx);
    }

    /// Sends a client what there is for it.
    fn tell(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(client) = self.clients.get_mut(at) else { return };
        // Where nothing waits to be read, the end makes an event.
        let left = client.tap.is_some() && client.has_left();
        let over = match client.tap {
            Some(_) if left => true,
            Some(tap) if cx.shared.taps.is_over(tap) => {
                client.tap = None;
                client.say(cx.shared.taps.close(tap));
                self.patience(at, cx.now.mono.after(PATIENCE), cx);
                self.clients.get_mut(at).is_some_and(Client::finish)
            }
            Some(tap) => client.pass_on(tap, &mut cx.shared.taps),
            None => client.finish(),
        };
        if over {
            self.close(at, cx);
        }
    }

    /// A client's time is up at `until`, not when it was.
    fn patience(&mut self, at: usize, until: Mono, cx: &mut Cx<'_>) {
        if let Some(client) = self.clients.get_mut(at) {
            cx.cancel(client.timer);
            client.timer = cx.arm(Key(FIRST_CLIENT + at), until);
        }
    }

    /// Does what the line of the client `at` asks for; `None` where the answer comes later.
    fn obey(&mut self, line: &str, at: usize, cx: &mut Cx<'_>) -> Option<String> {
        let key = Key(FIRST_CLIENT + at);
        match Request::parse(line) {
            Err(wanted) => Some(format!("error {wanted}\n")),
            Ok(Request::Status { sessions: true, json }) => {
                cx.gather(key, if json { Form::Json } else { Form::Text });
                None
            }
            Ok(Request::Status { sessions: false, json }) => {
                let report = status::Report::new(cx.shared, cx.now.mono);
                Some(format!("ok\n{}", if json { report.json() } else { report.text() }))
            }
            Ok(Request::Reload) => {
                cx.reload(key);
                None
            }
            Ok(Request::Log { level, time }) => {
                self.set_level(level, time, cx);
                Some("ok\n".to_owned())
            }
            Ok(Request::Trace { filter, count, time }) => Some(self.trace(at, filter, count, time, cx)),
        }
    }

    fn trace(&mut self, at: usize, filter: Filter, count: usize, time: Duration, cx: &mut Cx<'_>) -> String {
        if !self.facts.carries {
            return format!("error {}\n", status::NO_SESSIONS);
        }
        let until = cx.now.mono.after(time);
        let Some(tap) = cx.shared.taps.open(filter, count, until) else {
            return "error too many traces\n".to_owned();
        };
        self.patience(at, until, cx);
        if let Some(client) = self.clients.get_mut(at) {
            client.tap = Some(tap);
        }
        "ok\n".to_owned()
    }

    fn set_level(&mut self, level: LevelFilter, time: Option<Duration>, cx: &mut Cx<'_>) {
        if let Some(timer) = self.quiet_again.take() {
            cx.cancel(timer);
        }
        if let Some(time) = time {
            self.quiet_again = Some(cx.arm(QUIET_AGAIN, cx.now.mono.after(time)));
        }
        log::set_max_level(level);
        log::info!(target: "control", "log level is now {}", level.as_str().to_ascii_lowercase());
    }

    fn time_is_up(&mut self, at: usize, cx: &mut Cx<'_>) {
        match self.clients.get(at).and_then(|client| client.tap) {
            Some(_) => self.tell(at, cx),
            None => self.close(at, cx),
        }
    }

    fn close(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(mut client) = self.clients.try_remove(at) else { return };
        if let Some(tap) = client.tap {
            cx.shared.taps.close(tap);
        }
        cx.cancel(client.timer);
        cx.deregister(&mut client.stream, client.registration);
    }
}

impl Service for Control {
    fn name(&self) -> String {
        "control".to_owned()
    }

    fn sockets(&self) -> Vec<SocketSpec> {
        vec![self.spec()]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        let Socket::Unix(mut listener) = cx.take_socket(&self.spec())? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let registration = cx.register(&mut listener, LISTENER, Interest::READABLE)?;
        self.listener = Some((listener, registration));
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        match key {
            LISTENER => self.accept(cx),
            Key(client) => self.serve(client - FIRST_CLIENT, cx),
        }
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        match key {
            LISTENER => {
                self.breath = None;
                self.accept(cx);
            }
            QUIET_AGAIN => {
                self.quiet_again = None;
                self.set_level(self.facts.level, None, cx);
            }
            Key(client) => self.time_is_up(client - FIRST_CLIENT, cx),
        }
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        let reply = match result {
            Done::Reloaded(Ok(())) if self.facts.late => format!("ok\n{LATE}\n"),
            Done::Reloaded(Ok(())) => "ok\n".to_owned(),
            Done::Reloaded(Err(why)) => format!("error {why}\n"),
            Done::Gathered(form, told) => format!("ok\n{}", status::sessions(form, &told)),
            _ => return,
        };
        let at = key.0 - FIRST_CLIENT;
        if let Some(client) = self.clients.get_mut(at).filter(|client| client.waits()) {
            client.say(reply);
            self.tell(at, cx);
        }
    }

    fn taps_filled(&mut self, cx: &mut Cx<'_>) {
        let readers: Vec<usize> =
            self.clients.iter().filter(|(_, client)| client.tap.is_some()).map(|(at, _)| at).collect();
        for at in readers {
            self.tell(at, cx);
        }
    }

    /// The clients stay: one of them asked for this, and others may follow sessions.
    fn reload(&mut self, new: Box<dyn Service>, cx: &mut Cx<'_>) -> Option<Box<dyn Service>> {
        let same = |new: &&Control| new.path == self.path;
        let Some(facts) = (&*new as &dyn Any).downcast_ref().filter(same).map(|new| new.facts) else {
            return Some(new);
        };
        let before = std::mem::replace(&mut self.facts, facts);
        if before.level == facts.level {
            return None;
        }
        if let Some(timer) = self.quiet_again.take() {
            cx.cancel(timer);
        }
        None
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        let clients: Vec<usize> = self.clients.iter().map(|(at, _)| at).collect();
        for at in clients {
            self.close(at, cx);
        }
        if let Some((mut listener, registration)) = self.listener.take() {
            cx.deregister(&mut listener, registration);
            cx.give_back(&self.spec(), Socket::Unix(listener));
        }
    }
}
