//! The control socket as a service: bounded clients, bounded lines, bounded patience.
//!
//! A client that never sends, or never reads, holds one of a few places until its time is up and does no other
//! harm. What requests mean is in `request`; what the report says, in `status`.

use super::request::Request;
use super::status;
use crate::bytes::LogGate;
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Key, Ready, Registration, Service, Socket, SocketSpec};
use crate::wheel::TimerId;
use log::LevelFilter;
use mio::Interest;
use mio::net::{UnixListener, UnixStream};
use slab::Slab;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::Duration;

/// Clients at a time; one more is turned away.
const CLIENTS: usize = 8;
/// The longest request line.
const LINE: usize = 256;
/// How many reads a client's surplus is worth before it is cut off.
const REST: usize = 64;
/// How long a client may take from its connection to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// When to try again after the process ran out of descriptors.
const BREATH: Duration = Duration::from_millis(200);
/// Between two lines about that.
const COMPLAINTS: Duration = Duration::from_secs(1);

const LISTENER: Key = Key(0);
const QUIET_AGAIN: Key = Key(1);
const FIRST_CLIENT: usize = 2;

/// The control socket.
pub struct Control {
    path: PathBuf,
    level: LevelFilter,
    listener: Option<(UnixListener, Registration)>,
    clients: Slab<Client>,
    quiet_again: Option<TimerId>,
    /// Out of descriptors: when to accept again.
    breath: Option<TimerId>,
    complaints: LogGate,
}

struct Client {
    stream: UnixStream,
    registration: Registration,
    timer: TimerId,
    line: Vec<u8>,
    reply: Option<Reply>,
}

struct Reply {
    bytes: Vec<u8>,
    sent: usize,
}

impl Control {
    /// A control socket at `path`; `level` is what a timed change of the log level returns to.
    #[must_use]
    pub fn new(path: PathBuf, level: LevelFilter) -> Control {
        Control {
            path,
            level,
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
        self.clients.insert(Client { stream, registration, timer, line: Vec::new(), reply: None });
    }

    fn serve(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(client) = self.clients.get_mut(at) else { return };
        if client.reply.is_none() {
            match client.read_line() {
                Progress::Waiting => return,
                Progress::Over => return self.close(at, cx),
                Progress::Line(line) => {
                    let key = Key(FIRST_CLIENT + at);
                    let Some(reply) = self.obey(&line, key, cx) else { return };
                    self.answer(at, reply);
                }
            }
        }
        if self.clients.get_mut(at).is_some_and(Client::finish) {
            self.close(at, cx);
        }
    }

    fn answer(&mut self, at: usize, text: String) {
        if let Some(client) = self.clients.get_mut(at) {
            client.reply = Some(Reply { bytes: text.into_bytes(), sent: 0 });
        }
    }

    /// Does what a line asks for; `None` where the answer comes later, under `key`.
    fn obey(&mut self, line: &str, key: Key, cx: &mut Cx<'_>) -> Option<String> {
        match Request::parse(line) {
            Err(wanted) => Some(format!("error {wanted}\n")),
            Ok(Request::Status { json }) => {
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
        }
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

    fn close(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(mut client) = self.clients.try_remove(at) else { return };
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
                self.set_level(self.level, None, cx);
            }
            Key(client) => self.close(client - FIRST_CLIENT, cx),
        }
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        let Done::Reloaded(result) = result else { return };
        let at = key.0 - FIRST_CLIENT;
        self.answer(at, result.map_or_else(|why| format!("error {why}\n"), |()| "ok\n".to_owned()));
        self.serve(at, cx);
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

enum Progress {
    Waiting,
    Line(String),
    Over,
}

impl Client {
    fn read_line(&mut self) -> Progress {
        let mut chunk = [0; LINE];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Progress::Over,
                Ok(count) => self.line.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Progress::Waiting,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Over,
            }
            if let Some(end) = self.line.iter().position(|b| *b == b'\n') {
                return Progress::Line(String::from_utf8_lossy(&self.line[..end]).into_owned());
            }
            if self.line.len() > LINE {
                return Progress::Line(String::new());
            }
        }
    }

    /// Writes on, then waits for the client to close: to close first with bytes unread would reset the connection
    /// and might take the reply with it. `true` when it is over.
    fn finish(&mut self) -> bool {
        if !self.write_reply() {
            return false;
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut rest = [0; LINE];
        for _ in 0..REST {
            match self.stream.read(&mut rest) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
        true
    }

    /// Writes on; `true` when all is written or nobody reads any more.
    fn write_reply(&mut self) -> bool {
        let Some(reply) = &mut self.reply else { return false };
        while reply.sent < reply.bytes.len() {
            match self.stream.write(&reply.bytes[reply.sent..]) {
                Ok(count) => reply.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
        true
    }
}
