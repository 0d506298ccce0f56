//! One client of the control socket: its request line, and its reply, at once or bit by bit.
//!
//! Reads and writes as much as goes without waiting. What requests mean and how long a client may take is for
//! `control`.

use crate::reactor::Registration;
use crate::taps::{TapId, Taps};
use crate::wheel::TimerId;
use mio::net::UnixStream;
use std::io::{self, Read, Write};
use std::net::Shutdown;

/// The longest request line.
const LINE: usize = 512;
/// How many reads a client's surplus is worth before it is cut off.
const REST: usize = 64;

/// A client.
pub struct Client {
    /// Its connection, and the watch over it.
    pub stream: UnixStream,
    /// See `stream`.
    pub registration: Registration,
    /// When its time is up.
    pub timer: TimerId,
    /// The tap that it reads, while that is open.
    pub tap: Option<TapId>,
    stage: Stage,
}

enum Stage {
    /// So much of its line is here.
    Asks(Vec<u8>),
    /// The answer is being found.
    Waits,
    /// The answer, and how much of it is sent.
    Told(Vec<u8>, usize),
}

/// How far the request line has come.
pub enum Asked {
    /// Not to its end.
    NotYet,
    /// Here it is.
    Line(String),
    /// It was here before; the client waits for an answer, or gets it.
    Before,
    /// There will be none.
    Over,
}

/// How far the answer has gone.
enum Sent {
    All,
    Blocked,
    Gone,
}

impl Client {
    /// A client that has said nothing yet.
    #[must_use]
    pub fn new(stream: UnixStream, registration: Registration, timer: TimerId) -> Client {
        Client { stream, registration, timer, tap: None, stage: Stage::Asks(Vec::new()) }
    }

    /// Reads on in its line.
    pub fn asked(&mut self) -> Asked {
        let Stage::Asks(line) = &mut self.stage else { return Asked::Before };
        let mut chunk = [0; LINE];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) if line.is_empty() => return Asked::Over,
                // Some never end their line, but close it.
                Ok(0) => line.push(b'\n'),
                Ok(count) => line.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Asked::NotYet,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Asked::Over,
            }
            let end = line.iter().position(|b| *b == b'\n');
            if end.is_some() || line.len() > LINE {
                let text = String::from_utf8_lossy(&line[..end.unwrap_or(0)]).into_owned();
                self.stage = Stage::Waits;
                return Asked::Line(text);
            }
        }
    }

    /// Whether it has asked and nothing is said yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.stage, Stage::Waits)
    }

    /// Puts `text` behind what is still to be sent.
    pub fn say(&mut self, text: String) {
        match &mut self.stage {
            Stage::Told(bytes, sent) if *sent < bytes.len() => bytes.extend_from_slice(text.as_bytes()),
            stage => *stage = Stage::Told(text.into_bytes(), 0),
        }
    }

    /// Sends on what there is to say, then waits for the client to close: to close first with bytes unread would
    /// reset the connection and might take the reply with it. `true` when it is over.
    pub fn finish(&mut self) -> bool {
        match self.send() {
            Sent::Blocked => return false,
            Sent::All | Sent::Gone => {}
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        self.has_left()
    }

    /// Sends on what `tap` has to say, as fast as the client reads; `true` when it reads no more.
    pub fn pass_on(&mut self, tap: TapId, taps: &mut Taps) -> bool {
        loop {
            match self.send() {
                Sent::Blocked => return false,
                Sent::Gone => return true,
                Sent::All => {}
            }
            let lines = taps.take(tap);
            if lines.is_empty() {
                return false;
            }
            self.say(lines);
        }
    }

    /// Whether it has closed, or sends without end what nobody asked for. If not, nothing is left to read.
    pub fn has_left(&mut self) -> bool {
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

    fn send(&mut self) -> Sent {
        let Stage::Told(bytes, sent) = &mut self.stage else { return Sent::Blocked };
        while *sent < bytes.len() {
            match self.stream.write(&bytes[*sent..]) {
                Ok(count) => *sent += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Sent::Blocked,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Sent::Gone,
            }
        }
        Sent::All
    }
}
