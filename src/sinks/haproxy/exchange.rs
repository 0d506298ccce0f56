//! One line to HAProxy and its whole reply, on a connection of its own: connect, send, read to the end.
//!
//! A connection is never kept (after a reload it would lead to the old process) and never half-closed
//! (HAProxy 3 breaks off commands at that). This file knows sockets and bytes; what they mean is the
//! machine's affair, and deadlines are the service's.

use super::replies::MAX_REPLY;
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Key, Registration};
use mio::Interest;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;

/// A connection, from its beginning until HAProxy closes it.
pub struct Exchange {
    stream: Stream,
    /// For the log.
    to: String,
    registration: Registration,
    line: Vec<u8>,
    sent: usize,
    connected: bool,
    reply: Vec<u8>,
}

/// How far an exchange is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Not yet connected.
    Connecting,
    /// Nothing more to do until the socket is ready again.
    Waiting,
    /// Its turn is used up; there is more to read.
    More,
    /// HAProxy has closed: the reply is whole.
    Done,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Exchange {
    /// Begins one over a unix socket.
    ///
    /// # Errors
    /// What the system says, in one line for the log.
    pub fn over_unix(path: &Path, line: &str, key: Key, cx: &mut Cx<'_>) -> Result<Exchange, String> {
        let stream =
            UnixStream::connect(path).map_err(|e| cannot_connect(&path.display().to_string(), &e))?;
        Exchange::begin(Stream::Unix(stream), path.display().to_string(), line, key, cx)
    }

    /// Begins one over TCP.
    ///
    /// # Errors
    /// What the system says, in one line for the log.
    pub fn over_tcp(addr: SocketAddr, line: &str, key: Key, cx: &mut Cx<'_>) -> Result<Exchange, String> {
        let stream = TcpStream::connect(addr).map_err(|e| cannot_connect(&addr.to_string(), &e))?;
        Exchange::begin(Stream::Tcp(stream), addr.to_string(), line, key, cx)
    }

    fn begin(
        mut stream: Stream,
        to: String,
        line: &str,
        key: Key,
        cx: &mut Cx<'_>,
    ) -> Result<Exchange, String> {
        let both = Interest::READABLE | Interest::WRITABLE;
        let registration = cx.register(stream.source(), key, both).map_err(|e| plain(&e))?;
        let line = format!("{line}\n").into_bytes();
        Ok(Exchange { stream, to, registration, line, sent: 0, connected: false, reply: Vec::new() })
    }

    /// Goes on as far as the socket lets it.
    ///
    /// # Errors
    /// Why there will be no reply, in one line for the log.
    pub fn advance(&mut self, scratch: &mut [u8]) -> Result<Progress, String> {
        if !self.connected {
            match self.stream.connected() {
                Ok(true) => self.connected = true,
                Ok(false) => return Ok(Progress::Connecting),
                Err(e) => return Err(cannot_connect(&self.to, &e)),
            }
        }
        self.send().map_err(|e| format!("sending failed: {}", plain(&e)))?;
        self.receive(scratch)
    }

    /// The reply so far; all of it once [`Progress::Done`].
    #[must_use]
    pub fn reply(&self) -> &[u8] {
        &self.reply
    }

    /// Ends it.
    pub fn close(mut self, cx: &mut Cx<'_>) {
        cx.deregister(self.stream.source(), self.registration);
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(rest) = self.line.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.writer().write(rest) {
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn receive(&mut self, scratch: &mut [u8]) -> Result<Progress, String> {
        for _ in 0..READS_A_TURN {
            match self.stream.reader().read(scratch) {
                Ok(0) if self.sent == self.line.len() => return Ok(Progress::Done),
                Ok(0) => return Err("HAProxy closed the connection before it had read the line".to_owned()),
                Ok(count) if self.reply.len() + count > MAX_REPLY => {
                    return Err(format!("a reply longer than {} MiB", MAX_REPLY >> 20));
                }
                Ok(count) => self.reply.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("reading failed: {}", plain(&e))),
            }
        }
        Ok(Progress::More)
    }
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        }
    }

    /// Whether the connection stands; a unix socket's does from the beginning.
    fn connected(&self) -> io::Result<bool> {
        let Stream::Tcp(stream) = self else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn cannot_connect(to: &str, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => " (is HAProxy running, with `stats socket` at this path?)",
        io::ErrorKind::PermissionDenied => " (give beacond's user or group access to the stats socket)",
        _ => "",
    };
    format!("cannot connect to {to}: {}{hint}", plain(error))
}

/// The most reads in one turn; a usual reply takes two.
const READS_A_TURN: usize = 16;
