//! Load for a proxy, and the backend behind it: one thread, one poll, edge-triggered, so that both fit on one CPU.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

const LISTENER: Token = Token(usize::MAX - 1);
const CHUNK: usize = 256 << 10;
/// What one connection may move before the others have their turn.
const TURN: usize = 1 << 20;
/// Bytes of an answer.
const ANSWER: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the backend does with a connection once the whole first flight has come.
#[derive(Clone, Copy)]
enum Answer {
    /// Sends so many bytes and closes.
    Bytes(usize),
    /// Sends back [`ANSWER`] bytes for every first flight, and stays.
    Echo,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Backend,
}

struct Conn {
    stream: TcpStream,
    side: Side,
    /// Bytes received since the last answer was complete.
    got: usize,
    /// Bytes still to be sent.
    left: usize,
    /// A backend that has begun to answer.
    answering: bool,
    queued: bool,
}

/// Clients and their backend.
pub struct Load {
    poll: Poll,
    listener: TcpListener,
    /// Where the backend listens.
    pub backend: SocketAddr,
    conns: Slab<Conn>,
    again: VecDeque<usize>,
    scratch: Vec<u8>,
    flight: Vec<u8>,
    answer: Answer,
    done: usize,
    /// Bytes that clients have received.
    received: usize,
}

impl Load {
    /// Starts the backend on an address of its own.
    pub fn start() -> Load {
        let poll = Poll::new().expect("a poll");
        let raw = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        raw.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0)).into()).expect("an address");
        raw.listen(8192).expect("listening");
        raw.set_nonblocking(true).expect("a socket");
        let mut listener = TcpListener::from_std(raw.into());
        let backend = listener.local_addr().expect("an address");
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("registered");
        Load {
            poll,
            listener,
            backend,
            conns: Slab::new(),
            again: VecDeque::new(),
            scratch: vec![0x5a; CHUNK],
            flight: vec![0x5a; ANSWER],
            answer: Answer::Echo,
            done: 0,
            received: 0,
        }
    }

    /// `streams` clients read `bytes` in all.
    pub fn bulk(&mut self, proxy: SocketAddr, streams: usize, bytes: usize) {
        self.prepare(&[0x5a; ANSWER], Answer::Bytes(bytes / streams));
        (0..streams).for_each(|_| self.connect(proxy));
        self.until(streams, proxy, 0);
        assert_eq!(self.received, bytes / streams * streams, "all bytes arrive");
    }

    /// `count` connections, some at a time: connect, `flight`, an answer of 64 bytes, close.
    pub fn short(&mut self, proxy: SocketAddr, count: usize, flight: &[u8]) {
        const AT_ONCE: usize = 16;
        self.prepare(flight, Answer::Bytes(ANSWER));
        (0..AT_ONCE).for_each(|_| self.connect(proxy));
        self.until(count, proxy, count - AT_ONCE);
        assert_eq!(self.received, count * ANSWER, "every connection has its answer");
    }

    /// `count` connections that have passed one message each way, and stay until [`Load::close`].
    pub fn hold(&mut self, proxy: SocketAddr, count: usize) {
        self.prepare(&[0x5a; ANSWER], Answer::Echo);
        const STEP: usize = 100;
        for held in (0..count).step_by(STEP) {
            (0..STEP).for_each(|_| self.connect(proxy));
            self.until(held + STEP, proxy, 0);
        }
    }

    /// Times of `count` round trips of 64 bytes on one connection, in microseconds.
    pub fn round_trips(&mut self, proxy: SocketAddr, count: usize) -> Vec<f64> {
        self.hold_one(proxy);
        let client = self.conns.iter().find(|(_, conn)| conn.side == Side::Client).expect("a client").0;
        let mut times = Vec::with_capacity(count);
        for nth in 0..count {
            let start = Instant::now();
            let conn = &mut self.conns[client];
            conn.left = ANSWER;
            self.drive(client);
            self.until(2 + nth, proxy, 0);
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        self.close();
        times
    }

    fn hold_one(&mut self, proxy: SocketAddr) {
        self.prepare(&[0x5a; ANSWER], Answer::Echo);
        self.connect(proxy);
        self.until(1, proxy, 0);
    }

    /// Closes what is open, and waits until both ends are gone.
    pub fn close(&mut self) {
        let clients = |(key, conn): (usize, &Conn)| (conn.side == Side::Client).then_some(key);
        for key in self.conns.iter().filter_map(clients).collect::<Vec<_>>() {
            self.conns.remove(key);
        }
        let start = Instant::now();
        while !self.conns.is_empty() {
            self.turn();
            assert!(start.elapsed() < PATIENCE, "{} connections stay", self.conns.len());
        }
    }

    fn prepare(&mut self, flight: &[u8], answer: Answer) {
        self.close();
        (self.flight, self.answer, self.done, self.received) = (flight.to_vec(), answer, 0, 0);
    }

    fn connect(&mut self, proxy: SocketAddr) {
        let stream = TcpStream::connect(proxy).expect("a connection");
        self.add(stream, Side::Client, self.flight.len());
    }

    fn add(&mut self, mut stream: TcpStream, side: Side, left: usize) {
        let entry = self.conns.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(entry.key()), interest).expect("registered");
        let _ = stream.set_nodelay(true);
        entry.insert(Conn { stream, side, got: 0, left, answering: false, queued: false });
    }

    /// Goes on until `count` clients are done, opening `more` as others end.
    fn until(&mut self, count: usize, proxy: SocketAddr, mut more: usize) {
        let (start, mut seen) = (Instant::now(), self.done);
        while self.done < count {
            self.turn();
            while seen < self.done {
                seen += 1;
                if more > 0 {
                    more -= 1;
                    self.connect(proxy);
                }
            }
            assert!(start.elapsed() < PATIENCE, "{} of {count} are done", self.done);
        }
    }

    fn turn(&mut self) {
        let wait = if self.again.is_empty() { Duration::from_secs(1) } else { Duration::ZERO };
        let mut events = Events::with_capacity(1024);
        let _ = self.poll.poll(&mut events, Some(wait));
        for event in &events {
            match event.token() {
                LISTENER => {
                    while let Ok((stream, _)) = self.listener.accept() {
                        self.add(stream, Side::Backend, 0);
                    }
                }
                Token(key) => self.drive(key),
            }
        }
        for _ in 0..self.again.len() {
            if let Some(key) = self.again.pop_front() {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.queued = false;
                }
                self.drive(key);
            }
        }
    }

    /// Moves one connection on as far as it goes.
    fn drive(&mut self, key: usize) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let mut moved = 0;
        let mut ended = false;
        // A client first says what it has to say; a connection in the making cannot yet.
        let mut busy = true;
        while busy && moved < TURN {
            busy = false;
            if conn.left > 0 {
                let bytes = if conn.side == Side::Client { &self.flight } else { &self.scratch };
                match conn.stream.write(&bytes[..conn.left.min(bytes.len())]) {
                    Ok(count) => {
                        (conn.left, moved, busy) = (conn.left - count, moved + count, true);
                    }
                    Err(error) => assert!(not_yet(error.kind()), "sending: {error}"),
                }
            }
            match conn.stream.read(&mut self.scratch) {
                Ok(0) => ended = true,
                Ok(count) => (conn.got, moved, busy) = (conn.got + count, moved + count, true),
                Err(error) => assert!(not_yet(error.kind()), "receiving: {error}"),
            }
            let whole = if conn.side == Side::Client { ANSWER } else { self.flight.len() };
            match (conn.side, self.answer) {
                (Side::Client, Answer::Echo) if conn.got >= whole => {
                    (conn.got, self.done) = (conn.got - whole, self.done + 1);
                }
                (Side::Backend, Answer::Echo) if conn.got >= whole => {
                    (conn.got, conn.left, busy) = (conn.got - whole, ANSWER, true);
                }
                (Side::Backend, Answer::Bytes(count)) if conn.got >= whole && !conn.answering => {
                    (conn.answering, conn.left, busy) = (true, count, true);
                }
                (Side::Backend, Answer::Bytes(_)) if conn.answering && conn.left == 0 => ended = true,
                _ => {}
            }
            if ended {
                if let (Side::Client, Answer::Bytes(_)) = (conn.side, self.answer) {
                    self.received += conn.got;
                    self.done += 1;
                }
                self.conns.remove(key);
                return;
            }
        }
        if busy && !conn.queued {
            conn.queued = true;
            self.again.push_back(key);
        }
    }
}

fn not_yet(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}
