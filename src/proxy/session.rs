//! A session: a client's connection, the one made for it, and what is known about them; and its line in the access log.
//!
//! Sessions are many and mostly idle, so what only their beginning needs is boxed apart and dropped with it.

use super::end::End;
use super::flight::Flight;
use super::hello::Alpn;
use super::pair::{Pair, Side};
use super::routes::Target;
use super::splice::Pipe;
use super::tunnel;
use super::verdict;
use crate::bytes::{Escaped, Printable};
use crate::clock::Mono;
use crate::members::MemberId;
use crate::reactor::Registration;
use crate::wheel::TimerId;
use mio::net::{TcpStream, UnixStream};
use std::fmt;
use std::net::SocketAddr;

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Its number: no other session of this process has it.
    pub id: u64,
    /// How far it is.
    pub stage: Stage,
    /// The connection that was accepted.
    pub client: Leg,
    /// The connection that was made for it.
    pub server: Option<Leg>,
    /// Which way bytes may flow.
    pub pair: Pair,
    /// What was read from each side and not yet taken by the other.
    pub holds: [Hold; 2],
    /// How many bytes the next read from each side may ask for.
    pub grants: [usize; 2],
    /// When a byte last moved.
    pub active: Mono,
    /// Its present stage ends at this time at the latest; while it relays, its member's leave ends it.
    pub deadline: Mono,
    /// Its timer, and when that is due: at the deadline or earlier, for a deadline that moves away moves no timer.
    pub timer: Option<(TimerId, Mono)>,
    /// What its beginning needs, until bytes flow.
    pub early: Option<Box<Early>>,
    /// What is known about it.
    pub facts: Box<Facts>,
}

/// How far a session is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Its first flight is read.
    Flight,
    /// The program behind `--auth` is asked.
    Auth,
    /// The target's name is looked up.
    Resolve,
    /// It is being connected.
    Connect,
    /// The upstream proxy's answer is awaited.
    Answer,
    /// Bytes flow.
    Relay,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Flight, Stage::Auth, Stage::Resolve, Stage::Connect, Stage::Answer, Stage::Relay];

    /// The word in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Stage::Flight => "hello",
            Stage::Auth => "auth",
            Stage::Resolve => "resolve",
            Stage::Connect => "connect",
            Stage::Answer => "answer",
            Stage::Relay => "relay",
        }
    }
}

/// A connection under watch.
#[derive(Debug)]
pub struct Leg {
    /// The connection.
    pub stream: TcpStream,
    /// Its place in the loop.
    pub registration: Registration,
}

/// What is held on its way from one side to the other.
#[derive(Debug, Default)]
pub enum Hold {
    /// Nothing.
    #[default]
    Nothing,
    /// Bytes, those before `at` gone already.
    Bytes {
        /// The bytes.
        bytes: Box<[u8]>,
        /// How many of them are gone.
        at: usize,
    },
    /// What lies in a pipe, which may be nothing.
    Pipe(Pipe),
}

impl Hold {
    /// How much of this process's memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        if let Hold::Bytes { bytes, .. } = self { bytes.len() } else { 0 }
    }
}

/// What the beginning of a session needs.
#[derive(Debug)]
pub struct Early {
    /// Its first bytes.
    pub flight: Flight,
    /// The question to the program behind `--auth`, while there is one.
    pub hook: Option<Hook>,
    /// When it is to be asked, since just now nobody could be.
    pub ask_again: Mono,
    /// Where it goes.
    pub target: Target,
    /// Addresses that can still be tried, the next one last.
    pub addresses: Vec<SocketAddr>,
    /// Members that were tried.
    pub tried: Vec<MemberId>,
    /// When connecting is given up.
    pub give_up: Mono,
    /// What is written before the answer of an upstream proxy is awaited, and how much of it has been.
    pub request: (Vec<u8>, usize),
    /// The answer, while it comes.
    pub answer: Option<tunnel::Answer>,
}

/// A question under way.
#[derive(Debug)]
pub struct Hook {
    /// The connection to the program.
    pub stream: UnixStream,
    /// Its place in the loop.
    pub registration: Registration,
    /// The question, and how much of it is sent.
    pub line: (Vec<u8>, usize),
    /// The answer, as it comes.
    pub reader: verdict::Reader,
}

/// What is known about a session.
#[derive(Debug)]
pub struct Facts {
    /// When it was accepted.
    pub opened: Mono,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The client: the PROXY header's, else the peer.
    pub src: SocketAddr,
    /// Where the client connected to, if that is known.
    pub dst: Option<SocketAddr>,
    /// The server name that the client asked for, as it was sent.
    pub sni: Option<Box<str>>,
    /// The protocols that it offers.
    pub alpn: Alpn,
    /// The host that its PROXY header names.
    pub authority: Option<Box<str>>,
    /// The row of its route in the ledger.
    pub route: Option<usize>,
    /// Its pool and the member in it.
    pub member: Option<(usize, MemberId)>,
    /// The address it was last connected to, or tried.
    pub server: Option<SocketAddr>,
    /// How often it was tried to connect.
    pub tries: u16,
    /// Whether its source counts it.
    pub counted: bool,
    /// When its first flight was whole.
    pub hello_at: Option<Mono>,
    /// When it was connected.
    pub connected_at: Option<Mono>,
    /// Bytes that the server got from us and not from the client.
    pub extra: usize,
    /// What there is to say about its end beyond a word.
    pub why: Option<Box<str>>,
    /// Whether somebody traces it.
    pub traced: bool,
}

impl Facts {
    /// Nothing but who connected, and when.
    #[must_use]
    pub fn new(peer: SocketAddr, now: Mono) -> Facts {
        Facts {
            opened: now,
            peer,
            src: peer,
            dst: None,
            sni: None,
            alpn: Alpn::default(),
            authority: None,
            route: None,
            member: None,
            server: None,
            tries: 0,
            counted: false,
            hello_at: None,
            connected_at: None,
            extra: 0,
            why: None,
            traced: false,
        }
    }
}

/// A session's name in logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub u64);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{:08x}}}", self.0)
    }
}

impl Session {
    /// Bytes of the client that the server took, and of the server that the client took.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let extra = u64::try_from(self.facts.extra).unwrap_or(u64::MAX);
        (self.pair.passed(Side::Client).saturating_sub(extra), self.pair.passed(Side::Server))
    }

    /// What it holds for one side or the other in this process's memory.
    #[must_use]
    pub fn held(&self) -> usize {
        self.holds.iter().map(Hold::size).sum()
    }
}

/// The line that a session leaves in the access log, behind its tag.
pub struct Line<'a> {
    /// The session.
    pub session: &'a Session,
    /// How it ended.
    pub end: End,
    /// The address it came in at, as the proxy's option has it.
    pub listen: SocketAddr,
    /// Its route and target, as they are written.
    pub route: Option<(&'a str, &'a str)>,
    /// When it ended.
    pub now: Mono,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { session, end, listen, route, now } = self;
        let facts = &session.facts;
        write!(f, "end={end} src={} peer={} listen={listen}", facts.src, facts.peer)?;
        if let Some(name) = &facts.sni {
            write!(f, " sni={}", Escaped(name.as_bytes()))?;
        }
        let mut before = " alpn=";
        for protocol in facts.alpn.iter() {
            write!(f, "{before}{}", Escaped(protocol))?;
            before = ",";
        }
        if let Some(name) = &facts.authority {
            write!(f, " authority={}", Escaped(name.as_bytes()))?;
        }
        if let Some((route, target)) = route {
            write!(f, " route={} target={target}", Escaped(route.as_bytes()))?;
        }
        if let Some(server) = facts.server {
            let word = if facts.member.is_some() { "member" } else { "server" };
            write!(f, " {word}={server}")?;
        }
        let (from_client, to_client) = session.bytes();
        write!(f, " in={from_client} out={to_client} tries={}", facts.tries)?;
        for (word, from, to) in [
            ("hello", Some(facts.opened), facts.hello_at),
            ("connect", facts.hello_at, facts.connected_at),
            ("total", Some(facts.opened), Some(*now)),
        ] {
            if let (Some(from), Some(to)) = (from, to) {
                write!(f, " {word}={}ms", to.since(from).as_millis())?;
            }
        }
        if let Some(why) = &facts.why {
            // Last, so that its blanks can stay.
            write!(f, " why={}", Printable(why.as_bytes()))?;
        }
        Ok(())
    }
}
