//! Connections come in, within limits, and their first flights are read.

use super::end::End;
use super::flight::{Fault, Flight, Progress};
use super::hello;
use super::pair::{Pair, Side};
use super::relay::retry;
use super::routes::Target;
use super::service::{LISTENER, Part, Proxy, key};
use super::session::{Early, Facts, Leg, Session, Stage, Tag};
use super::{dump, ppv2};
use crate::bytes::HexDump;
use crate::clock::Mono;
use crate::reactor::bank::plain;
use crate::reactor::offload::Care;
use crate::reactor::{Cx, Job, Key, STREAM};
use mio::net::TcpStream;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::Duration;

/// When to accept again after the process ran out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

impl Proxy {
    /// Takes what waits to be let in, a batch at the most.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>) {
        if self.let_in(self.rules.settings.accept_batch, cx) {
            cx.again(LISTENER);
        }
    }

    /// Takes so many of those that wait at the most; whether more may wait.
    pub(super) fn let_in(&mut self, most: usize, cx: &mut Cx<'_>) -> bool {
        for _ in 0..most {
            let Some((listener, _)) = &self.door else { return false };
            if self.sessions.len() >= self.limit {
                self.full = true;
                if let Some(times) = self.gates.accept.pass(cx.now.mono) {
                    log::warn!(
                        target: "proxy",
                        "{}: all {} sessions in use: new connections wait ({times} time(s))",
                        self.address,
                        self.limit
                    );
                }
                return false;
            }
            match retry(|| listener.accept()) {
                Ok((stream, peer)) => self.welcome(stream, peer, cx),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                // It went away while it waited.
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    self.catch_breath(&e, cx);
                    return false;
                }
            }
        }
        true
    }

    /// Out of descriptors or memory: whoever waits makes no new event.
    fn catch_breath(&mut self, error: &std::io::Error, cx: &mut Cx<'_>) {
        cx.shared.stats.add(crate::stats::Counter::ProxyAcceptError);
        if let Some(times) = self.gates.accept.pass(cx.now.mono) {
            log::warn!(
                target: "proxy",
                "{}: cannot accept: {}; new connections wait ({times} time(s))",
                self.address,
                plain(error)
            );
        }
        if self.breath.is_none() {
            self.breath = Some(cx.arm(LISTENER, cx.now.mono.after(BREATH)));
        }
    }

    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr, cx: &mut Cx<'_>) {
        cx.shared.stats.add(crate::stats::Counter::ProxyAccepted);
        let at = self.sessions.vacant_key();
        let Ok(registration) = cx.register(&mut stream, key(at, Part::Client), STREAM) else { return };
        let settings = &self.rules.settings;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // Who must send a header, and is not of those who may, cannot say who the client is.
        let mut neighbours = settings.accept_proxy_from.iter();
        let stranger =
            !settings.accept_proxy_from.is_empty() && !neighbours.any(|range| range.covers(peer.ip()));
        let flight = Flight::new(settings.accept_proxy, settings.sniff.then_some(settings.hello_size));
        let whole = stranger || flight.is_whole();
        let early = Early {
            flight,
            hook: None,
            ask_again: Mono::NEVER,
            target: Target::Reject,
            addresses: Vec::new(),
            tried: Vec::new(),
            give_up: Mono::NEVER,
            request: (Vec::new(), 0),
            answer: None,
        };
        // A silent client of a server that speaks first is let through early.
        let patience = match settings.server_first {
            Some(quiet) if !settings.accept_proxy => quiet.min(settings.hello_timeout),
            _ => settings.hello_timeout,
        };
        let session = Session {
            id: cx.unique(),
            stage: if whole { Stage::Auth } else { Stage::Flight },
            client: Leg { stream, registration },
            server: None,
            pair: Pair::new(),
            holds: Default::default(),
            grants: [0; 2],
            active: cx.now.mono,
            deadline: cx.now.mono.after(patience),
            timer: None,
            early: Some(Box::new(early)),
            facts: Box::new(Facts::new(peer, cx.now.mono)),
        };
        self.sessions.insert(session);
        if stranger {
            let why = "not of --accept-proxy-from".to_owned();
            return self.end(at, End::Denied, Some(why), cx);
        }
        if whole {
            return self.arrived(at, cx);
        }
        self.enter_hello(at, cx);
        self.watch(at, cx);
    }

    /// Counts a session among those at their first flight; the oldest of too many ends.
    fn enter_hello(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(id) = self.sessions.get(at).map(|session| session.id) else { return };
        self.hellos.push_back((at, id));
        self.at_hello += 1;
        let at_hello = |p: &Proxy, (at, id): (usize, u64)| {
            p.sessions.get(at).is_some_and(|s| s.id == id && s.stage == Stage::Flight)
        };
        while self.at_hello > self.rules.settings.max_hello {
            let Some(oldest) = self.hellos.pop_front() else { return };
            if at_hello(self, oldest) {
                self.end(oldest.0, End::HelloLimit, None, cx);
            }
        }
        // Those that are past it lie about until they come to the front, or are too many.
        if self.hellos.len() > 2 * self.at_hello + 64 {
            let mut hellos = std::mem::take(&mut self.hellos);
            hellos.retain(|entry| at_hello(self, *entry));
            self.hellos = hellos;
        }
    }

    /// Reads on in a first flight.
    pub(super) fn read_flight(&mut self, at: usize, cx: &mut Cx<'_>) {
        loop {
            let Some(session) = self.sessions.get_mut(at) else { return };
            let Some(early) = &mut session.early else { return };
            let room = early.flight.room().min(cx.scratch.len());
            let Some(room) = cx.scratch.get_mut(..room).filter(|room| !room.is_empty()) else {
                return self.refuse(at, Fault::Hello(hello::Reason::OverLimit), cx);
            };
            let count = match retry(|| session.client.stream.read(room)) {
                Ok(0) => return self.end(at, End::ClientGone, None, cx),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    session.pair.drained(Side::Client);
                    return self.expect_silence(at, cx);
                }
                Err(_) => return self.end(at, End::ClientReset, None, cx),
            };
            let short = count < room.len();
            if short {
                session.pair.read(Side::Client, 0, 1);
            }
            match early.flight.feed(&room[..count]) {
                Progress::More if short && !session.pair.has_news(Side::Client) => {
                    return self.expect_silence(at, cx);
                }
                Progress::More => {}
                Progress::Whole => {
                    self.at_hello -= 1;
                    return self.arrived(at, cx);
                }
                Progress::Bad(fault) => return self.refuse(at, fault, cx),
            }
        }
    }

    /// A PROXY header may be all that comes before the server has spoken.
    fn expect_silence(&mut self, at: usize, cx: &mut Cx<'_>) {
        let (quiet, header) = (self.rules.settings.server_first, self.rules.settings.accept_proxy);
        let Some((quiet, session)) = quiet.filter(|_| header).zip(self.sessions.get_mut(at)) else { return };
        if session.early.as_ref().is_some_and(|early| early.flight.may_be_silent()) {
            session.deadline = session.deadline.min(cx.now.mono.after(quiet));
            self.watch(at, cx);
        }
    }

    /// A first flight that nobody may route by.
    fn refuse(&mut self, at: usize, fault: Fault, cx: &mut Cx<'_>) {
        let (end, kind) = match fault {
            Fault::Header(_) => (End::BadHeader, dump::Kind::Proxy),
            Fault::Hello(hello::Reason::OverLimit) => (End::TooLong, dump::Kind::Hello),
            Fault::Hello(_) => (End::BadHello, dump::Kind::Hello),
        };
        self.keep_dump(at, kind, cx);
        self.end(at, end, Some(fault.to_string()), cx);
    }

    /// Keeps a refused first flight for whoever wants to know what was wrong with it.
    pub(super) fn keep_dump(&mut self, at: usize, kind: dump::Kind, cx: &mut Cx<'_>) {
        let Some((session, early)) = self.sessions.get(at).and_then(|s| Some((s, s.early.as_ref()?))) else {
            return;
        };
        let bytes = match kind {
            dump::Kind::Proxy => early.flight.bytes(),
            dump::Kind::Hello => early.flight.stream(),
        };
        log::debug!(target: "proxy", "{} refused first flight\n{}", Tag(session.id), HexDump(bytes));
        let Some(folder) = self.rules.settings.dump.as_ref().map(|dump| &dump.folder) else { return };
        let Some(dump) = self.dumps.keep(kind, bytes, cx.now.mono) else { return };
        let path = folder.join(dump.slot.file_name());
        let mut said = format!(
            "{} refused first flight from {} kept in {}",
            Tag(session.id),
            session.facts.src,
            path.display()
        );
        if dump.cut > 0 {
            said += &format!(", without its last {} bytes", dump.cut);
        }
        let id = dump.slot.id();
        self.dumping.push((id, said));
        let job = Job::WriteFile { path, bytes: dump.text, care: Care::DUMP };
        if cx.offload(Key(id), job).is_err() {
            self.dumped(id, Err(ErrorKind::ResourceBusy.into()), cx);
        }
    }

    /// A dump was written, or could not be.
    pub(super) fn dumped(&mut self, id: usize, result: std::io::Result<()>, cx: &mut Cx<'_>) {
        self.dumps.written(id);
        let at = self.dumping.iter().position(|(known, _)| *known == id);
        let Some((_, said)) = at.map(|at| self.dumping.swap_remove(at)) else { return };
        match result {
            Ok(()) => log::info!(target: "proxy", "{said}"),
            Err(e) => {
                if let Some(times) = self.gates.dump.pass(cx.now.mono) {
                    log::warn!(target: "proxy", "cannot write a dump: {} ({times} time(s))", plain(&e));
                }
            }
        }
    }

    /// Goes on behind the dumps that an earlier run left.
    pub(super) fn resume_dumps(&mut self) {
        let Some(dump) = &self.rules.settings.dump else { return };
        let Ok(files) = std::fs::read_dir(&dump.folder) else { return };
        let mut found: Vec<_> = files
            .flatten()
            .filter_map(|file| {
                Some((file.metadata().ok()?.modified().ok()?, file.file_name().into_string().ok()?))
            })
            .collect();
        crate::sorted::sort(&mut found, Ord::cmp);
        self.dumps.resume(found.iter().map(|(_, name)| name.as_str()));
    }
}

/// What a header that came in says besides the addresses, for the next hop.
pub(super) fn passed_on<'a>(header: Option<ppv2::Header<'a>>, sni: Option<&'a str>) -> ppv2::Outgoing<'a> {
    let mut fields = header.map_or_else(ppv2::Outgoing::default, |header| header.tlvs.into());
    fields.authority = fields.authority.or(sni);
    fields
}
