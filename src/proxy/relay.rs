//! Bytes between the two connections of a session: does what [`super::pair`] asks for, by copying or by splicing.
//!
//! Copied bytes go through one scratch that all sessions share, straight into the other connection; only what that does
//! not take is kept, in a buffer of its own. So an idle session holds no buffer. A stream that moves in bulk is lent a
//! pipe, where there are pipes, until it pauses; one with urgent data is not: nothing is spliced past its mark.

use super::pair::{Over, Pair, Side, Step};
use super::session::{Hold, Leg, Session};
use super::splice::{Pipe, Pipes};
use crate::reactor::SCRATCH;
use mio::net::TcpStream;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

/// What all sessions of a proxy relay with.
#[derive(Debug)]
pub struct Means {
    /// Pipes to lend.
    pub pipes: Pipes,
    /// Bytes that sessions hold in this process's memory.
    pub held: usize,
    /// How many they should hold at most.
    pub most_held: usize,
}

/// What came of a turn of relaying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// Nothing to do until an event.
    Idle,
    /// The turn's budget is used up, and there is more to do.
    Busy,
    /// It is over.
    Over(Over),
}

/// Bytes that one session may move in a turn, and reads and writes that it may make: no stream starves the others.
const BUDGET: u64 = 1 << 20;
const ROUNDS: usize = 24;
/// What a stream may ask for at first: what one read brings may have to be kept.
const SMALL: usize = 16 << 10;
/// What it may ask for at most, once all that it brought was taken at once.
const LARGE: usize = SCRATCH;
/// What it may ask for while sessions hold too much.
const LITTLE: usize = 4 << 10;
/// A stream that may ask for this much moves in bulk.
const BULK: usize = 64 << 10;

impl Session {
    /// Relays until there is nothing to do or the turn's budget is used up; says too whether a byte moved.
    pub fn pump(&mut self, means: &mut Means, scratch: &mut [u8]) -> (Pumped, bool) {
        let before = self.pair.passed(Side::Client) + self.pair.passed(Side::Server);
        let moved = |pair: &Pair| pair.passed(Side::Client) + pair.passed(Side::Server) - before;
        let mut rounds = 0;
        loop {
            let step = self.pair.next();
            match step {
                Step::Wait => return (Pumped::Idle, moved(&self.pair) > 0),
                Step::Over(over) => return (Pumped::Over(over), moved(&self.pair) > 0),
                _ if rounds >= ROUNDS || moved(&self.pair) >= BUDGET => {
                    return (Pumped::Busy, moved(&self.pair) > 0);
                }
                Step::Read(side) => self.carry(side, means, scratch),
                Step::Write(side) => self.flush(side, means),
                Step::Discard(side) => self.discard(side, scratch),
                Step::Shut(side) => self.shut(side),
            }
            rounds += 1;
        }
    }

    /// Gives back what it holds.
    pub fn let_go(&mut self, means: &mut Means) {
        means.held = means.held.saturating_sub(self.held());
        for hold in &mut self.holds {
            if let Hold::Pipe(pipe) = std::mem::take(hold) {
                means.pipes.give_back(pipe);
            }
        }
    }

    /// Holds bytes that come from a side in front of everything else: a first flight.
    pub fn hold(&mut self, from: Side, bytes: Vec<u8>, means: &mut Means) {
        self.pair.owe(from, bytes.len());
        means.held += bytes.len();
        self.holds[from.at()] = Hold::Bytes { bytes: bytes.into(), at: 0 };
    }

    /// Reads from a side, and writes to the other what came.
    fn carry(&mut self, from: Side, means: &mut Means, scratch: &mut [u8]) {
        if self.grants[from.at()] >= BULK && self.lend(from, &mut means.pipes) {
            return self.carry_spliced(from, &mut means.pipes);
        }
        let to = from.other();
        let crowded = means.held >= means.most_held;
        let grant = if crowded { LITTLE } else { self.grants[from.at()].clamp(SMALL, LARGE) };
        let wanted = scratch.len().min(grant);
        let (Some(source), Some(sink)) = (self.stream(from), self.stream(to)) else { return };
        let room = &mut scratch[..wanted];
        let count = match retry(|| {
            let mut source = source;
            source.read(room)
        }) {
            Ok(0) => return self.pair.ended(from),
            Ok(count) => count,
            Err(e) => return fail(&mut self.pair, from, &e, Pair::drained),
        };
        let sent = retry(|| {
            let mut sink = sink;
            sink.write(&scratch[..count])
        });
        self.pair.read(from, count, wanted);
        let sent = match sent {
            Ok(sent) => sent,
            Err(e) => {
                fail(&mut self.pair, to, &e, Pair::full);
                if self.pair.held(from) == 0 {
                    return; // nobody takes it any more
                }
                0
            }
        };
        self.pair.wrote(to, sent, count);
        let grant = &mut self.grants[from.at()];
        if sent < count {
            *grant = (*grant / 2).max(SMALL);
            let rest: Box<[u8]> = scratch[sent..count].into();
            means.held += rest.len();
            self.holds[from.at()] = Hold::Bytes { bytes: rest, at: 0 };
        } else if count == wanted {
            *grant = wanted.saturating_mul(2).min(LARGE);
        }
    }

    /// Makes sure that a side has a pipe; `false` where there is none to lend, or it may have none.
    fn lend(&mut self, from: Side, pipes: &mut Pipes) -> bool {
        let hold = &mut self.holds[from.at()];
        if self.pair.is_marked(from) {
            // Where it still has one, that is empty: nothing is read while something is held.
            if let Hold::Pipe(pipe) = std::mem::take(hold) {
                pipes.give_back(pipe);
            }
        } else if let Hold::Nothing = hold
            && let Some(pipe) = pipes.lend()
        {
            *hold = Hold::Pipe(pipe);
        }
        matches!(hold, Hold::Pipe(_))
    }

    fn carry_spliced(&mut self, from: Side, pipes: &mut Pipes) {
        let to = from.other();
        let Hold::Pipe(mut pipe) = std::mem::take(&mut self.holds[from.at()]) else { return };
        let (Some(source), Some(sink)) = (self.stream(from), self.stream(to)) else { return };
        match retry(|| pipe.fill(source)) {
            Ok(0) if self.pair.end_comes(from) => self.pair.ended(from),
            // The end, or a mark with the end somewhere behind it, both of them news: a read tells.
            Ok(0) => self.pair.marked(from),
            // Less than the pipe's size may be all that there was, or all that the pipe had room for.
            Ok(count) => {
                let sent = retry(|| pipe.drain(sink));
                self.pair.read(from, count, count);
                tell(&mut self.pair, to, sent, count);
                if count < SMALL {
                    self.grants[from.at()] = SMALL;
                }
            }
            Err(e) => fail(&mut self.pair, from, &e, Pair::drained),
        }
        self.keep(from, pipe, pipes);
    }

    /// Keeps a pipe that holds something or will soon be filled again; gives back any other.
    fn keep(&mut self, from: Side, pipe: Pipe, pipes: &mut Pipes) {
        let soon = self.pair.has_news(from) && self.grants[from.at()] >= BULK;
        if pipe.held() > 0 && self.pair.held(from) > 0 || pipe.held() == 0 && soon {
            self.holds[from.at()] = Hold::Pipe(pipe);
        } else {
            pipes.give_back(pipe);
        }
    }

    /// Writes on what is held for a side.
    fn flush(&mut self, to: Side, means: &mut Means) {
        let from = to.other();
        let mut hold = std::mem::take(&mut self.holds[from.at()]);
        let Some(sink) = self.stream(to) else { return };
        match &mut hold {
            Hold::Nothing => {}
            Hold::Bytes { bytes, at } => {
                let rest = bytes.get(*at..).unwrap_or_default();
                let sent = retry(|| {
                    let mut sink = sink;
                    sink.write(rest)
                });
                let wanted = rest.len();
                *at += sent.as_ref().copied().unwrap_or(0);
                tell(&mut self.pair, to, sent, wanted);
            }
            Hold::Pipe(pipe) => {
                let wanted = pipe.held();
                let sent = retry(|| pipe.drain(sink));
                tell(&mut self.pair, to, sent, wanted);
            }
        }
        match hold {
            Hold::Pipe(pipe) => self.keep(from, pipe, &mut means.pipes),
            Hold::Bytes { bytes, .. } if self.pair.held(from) == 0 => {
                means.held = means.held.saturating_sub(bytes.len());
            }
            hold => self.holds[from.at()] = hold,
        }
    }

    fn discard(&mut self, from: Side, scratch: &mut [u8]) {
        let Some(source) = self.stream(from) else { return };
        match retry(|| {
            let mut source = source;
            source.read(scratch)
        }) {
            Ok(0) => self.pair.ended(from),
            Ok(count) => self.pair.read(from, count, scratch.len()),
            Err(e) => fail(&mut self.pair, from, &e, Pair::drained),
        }
    }

    fn shut(&mut self, to: Side) {
        let Some(sink) = self.stream(to) else { return };
        match sink.shutdown(Shutdown::Write) {
            Ok(()) => self.pair.shut(to),
            Err(e) => {
                fail(&mut self.pair, to, &e, Pair::full);
                self.pair.shut(to);
            }
        }
    }

    /// A read from a side failed, or there was nothing to read.
    pub fn failed_to_read(&mut self, side: Side, error: &io::Error) {
        fail(&mut self.pair, side, error, Pair::drained);
    }

    /// The connection of a side.
    #[must_use]
    pub fn stream(&self, side: Side) -> Option<&TcpStream> {
        let leg: Option<&Leg> = match side {
            Side::Client => Some(&self.client),
            Side::Server => self.server.as_ref(),
        };
        leg.map(|leg| &leg.stream)
    }
}

/// Does it again as long as a signal interrupts it.
pub fn retry<T>(mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match act() {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Tells the pair what a write of `wanted` bytes to a side came to.
fn tell(pair: &mut Pair, to: Side, sent: io::Result<usize>, wanted: usize) {
    match sent {
        Ok(sent) => pair.wrote(to, sent, wanted),
        Err(e) => fail(pair, to, &e, Pair::full),
    }
}

/// Tells the pair that a side failed, or only that it would block.
fn fail(pair: &mut Pair, side: Side, error: &io::Error, blocked: fn(&mut Pair, Side)) {
    match error.kind() {
        ErrorKind::WouldBlock => blocked(pair, side),
        kind => pair.reset(side, is_after_end(kind)),
    }
}

/// Whether an error says that the peer had ended its stream before it reset the connection. Linux tells the two apart:
/// what has received the end fails with a broken pipe.
#[must_use]
pub fn is_after_end(kind: ErrorKind) -> bool {
    kind == ErrorKind::BrokenPipe
}
