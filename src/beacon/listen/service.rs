//! The receiver at work: datagrams in, members and counters changed, a line logged where something happened.

use super::Config;
use crate::beacon::Reason;
use crate::beacon::gate::{Heard, Subject};
use crate::beacon::wire::{self, Body};
use crate::bytes::{LogBudget, LogGate, Printable};
use crate::clock::{Mono, Now, Seconds};
use crate::members::{self, Announce, BalancerId, Facts, Heard as Outcome, Member, Silence, Writer};
use crate::reactor::bank::{plain, set_receive_buffer};
use crate::reactor::udp::{BATCH, Receiver};
use crate::reactor::{Cx, Key, Ready, Registration, Service, Socket, SocketSpec};
use crate::shared::Shared;
use crate::stats::Counter;
use mio::Interest;
use mio::net::UdpSocket;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

const SOCKET: Key = Key(0);
/// The line about drops that no further one followed.
const DROPS: Key = Key(1);

/// Between two tries after a receive call failed.
const BREATH: Duration = Duration::from_millis(10);

/// Lines about members: a whole table at once, then so many a second. Whoever holds a key could flood the log else.
const MEMBER_LINES: u64 = 1000;
const MEMBER_LINES_PER_SECOND: u64 = 10;

/// Between two lines about dropped datagrams, as in the reference.
const DROP_LINES: Duration = Duration::from_secs(1);

/// A receiver.
pub struct Listen {
    listen: SocketAddr,
    rcvbuf: usize,
    receiver: Receiver,
    socket: Option<(UdpSocket, Registration)>,
    ear: Ear,
    /// Whether a timer is armed for [`DROPS`].
    telling: bool,
}

/// All of a receiver but its socket.
struct Ear {
    config: Config,
    balancer: Option<BalancerId>,
    writer: Writer,
    drops: LogGate,
    changes: LogBudget,
    last_drop: Option<(Reason, SocketAddr)>,
}

impl Listen {
    /// A receiver that has not started.
    #[must_use]
    pub fn new(config: Config) -> Listen {
        Listen {
            listen: config.listen,
            rcvbuf: config.rcvbuf,
            receiver: Receiver::default(),
            socket: None,
            ear: Ear {
                config,
                balancer: None,
                writer: Writer::NOBODY,
                drops: LogGate::new(DROP_LINES),
                last_drop: None,
                changes: LogBudget::new(MEMBER_LINES, MEMBER_LINES_PER_SECOND),
            },
            telling: false,
        }
    }

    fn spec(&self) -> SocketSpec {
        SocketSpec::Udp(self.listen)
    }

    fn size_buffer(&self, socket: &UdpSocket) {
        match set_receive_buffer(socket, self.rcvbuf) {
            Ok(granted) if granted < self.rcvbuf => log::warn!(
                target: "listen",
                "receive buffer is {granted} bytes, not {}: raise net.core.rmem_max, or a burst loses announcements",
                self.rcvbuf
            ),
            Ok(_) => {}
            Err(e) => log::warn!(target: "listen", "cannot set the receive buffer: {}", plain(&e)),
        }
    }
}

impl Service for Listen {
    fn name(&self) -> String {
        format!("listen:{}:{}", self.ear.config.balancer, self.listen)
    }

    fn sockets(&self) -> Vec<SocketSpec> {
        vec![self.spec()]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        let Socket::Udp(mut socket) = cx.take_socket(&self.spec())? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.size_buffer(&socket);
        self.ear.start(cx.writer(), cx.shared)?;
        log::info!(target: "listen", "listening for beacons on {}", socket.local_addr()?);
        let registration = cx.register(&mut socket, SOCKET, Interest::READABLE)?;
        self.socket = Some((socket, registration));
        Ok(())
    }

    fn ready(&mut self, _key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let Some((socket, _)) = &self.socket else { return };
        let (now, ear, shared) = (cx.now, &mut self.ear, &mut *cx.shared);
        match self
            .receiver
            .receive(socket, cx.scratch, &mut |datagram, from| ear.hear(datagram, from, now, shared))
        {
            Ok(count) if count < BATCH => {}
            Ok(_) => cx.again_hearing(SOCKET),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => {
                // An ICMP error, or the kernel short of memory: what waits in the socket is still there.
                // One that lasts must not make the loop spin.
                cx.shared.stats.add(Counter::BeaconReceiveError);
                log::debug!(target: "listen", "receiving: {}", plain(&e));
                cx.arm(SOCKET, cx.now.mono.after(BREATH));
            }
        }
        if let Some(at) = self.ear.drops.opens().filter(|_| !self.telling) {
            self.telling = true;
            cx.arm(DROPS, at);
        }
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == SOCKET {
            return self.ready(key, Ready { readable: true, ..Ready::default() }, cx);
        }
        self.telling = false;
        match self.ear.drops.opens() {
            // A drop has had its line meanwhile, and others came after it.
            Some(at) if cx.now.mono < at => {
                self.telling = true;
                cx.arm(DROPS, at);
            }
            _ => self.ear.tell_drops(cx.now.mono),
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if let Some((mut socket, registration)) = self.socket.take() {
            cx.deregister(&mut socket, registration);
            cx.give_back(&self.spec(), Socket::Udp(socket));
        }
        if let Some(id) = self.ear.balancer {
            cx.shared.members.release(id, self.ear.writer, cx.now.mono);
        }
        self.ear.tell_drops(cx.now.mono);
    }
}

impl Ear {
    fn start(&mut self, writer: Writer, shared: &mut Shared) -> io::Result<()> {
        let balancer = &self.config.balancer;
        let id = shared.members.find(balancer).ok_or(io::ErrorKind::NotFound)?;
        self.balancer = Some(id);
        self.writer = writer;
        // What the state file or an earlier configuration brought, unless this one does not admit it.
        let admission = &self.config.gate.admission;
        let mut admits = |member: &Member| admission.admit(member.url()).is_ok();
        shared.members.adopt(id, writer, self.config.timeout, &mut admits);
        if self.config.gate.is_unauthenticated() {
            log::warn!(
                target: "listen",
                "UNAUTHENTICATED: anybody who can send a datagram here can put a member into balancer://{balancer}"
            );
        }
        Ok(())
    }

    fn hear(&mut self, datagram: &[u8], from: SocketAddr, now: Now, shared: &mut Shared) {
        shared.stats.add(Counter::BeaconReceived);
        let Some(id) = self.balancer else { return };
        let known = |url: &[u8]| shared.members.knows(id, url, self.writer);
        let opened = match self.config.gate.open(datagram) {
            Ok(opened) => opened,
            Err(reason) => return self.drop(id, reason, from, now, shared),
        };
        let body = Body::parse(opened.text);
        let result = match self.config.gate.hear(&opened, &body, now, known) {
            Ok(heard) => {
                log::debug!(target: "listen", "received: {} from {from}", Printable(wire::text(datagram)));
                self.act(id, &heard, &body, from, now, shared)
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.drop(id, reason, from, now, shared);
        }
    }

    /// Does what an authentic datagram says.
    fn act(
        &mut self,
        id: BalancerId,
        heard: &Heard<'_>,
        body: &Body<'_>,
        from: SocketAddr,
        now: Now,
        shared: &mut Shared,
    ) -> Result<(), Reason> {
        let (url, outcome) = match &heard.subject {
            Subject::Nobody => {
                shared.stats.add(Counter::BeaconHeartbeat);
                shared.members.heartbeat(id, now.mono);
                return Ok(());
            }
            Subject::Here(url) => {
                let statement = self.statement(url, heard, body, from);
                (url, shared.members.announce(id, &statement, now.mono))
            }
            Subject::Leaving(url) => (url, shared.members.leave(id, url, heard.ts, now.mono)),
        };
        let (counter, change, facts) = match outcome {
            Outcome::Refreshed(_, facts) => (Counter::BeaconAccepted, None, facts),
            Outcome::Added(_, facts) => {
                (Counter::BeaconAccepted, Some((Counter::MemberAdded, "added backend", "to")), facts)
            }
            Outcome::Revived(_, facts) => {
                (Counter::BeaconAccepted, Some((Counter::MemberRevived, "re-enabled backend", "in")), facts)
            }
            Outcome::Left(_) => {
                (Counter::BeaconLeave, Some((Counter::MemberLeft, "left backend", "from")), Facts::default())
            }
            Outcome::Ignored => (Counter::BeaconLeave, None, Facts::default()),
            Outcome::Dropped(members::Reason::ReplayedTs) => return Err(Reason::Replayed),
            Outcome::Dropped(members::Reason::TableFull) => return Err(Reason::TableFull),
        };
        shared.stats.add(counter);
        let url = Printable(url);
        if let Some((counter, what, preposition)) = change {
            shared.stats.add(counter);
            if self.may_log(now) {
                let balancer = &self.config.balancer;
                log::info!(target: "listen", "{what} {url} {preposition} balancer://{balancer}");
            }
        }
        if !facts.is_empty() && self.may_log(now) {
            self.tell(&facts, url, body, from);
        }
        Ok(())
    }

    /// Whether there is budget for a line about a member; says how many there was none for.
    fn may_log(&mut self, now: Now) -> bool {
        let held = self.changes.pass(now.mono);
        if let Some(held @ 1..) = held {
            log::warn!(target: "listen", "{held} lines about members were held back");
        }
        held.is_some()
    }

    fn statement<'a>(
        &self,
        url: &'a [u8],
        heard: &Heard<'a>,
        body: &Body<'a>,
        from: SocketAddr,
    ) -> Announce<'a> {
        Announce {
            url,
            ts: heard.ts,
            replay_check: heard.authentic,
            timeout: self.config.timeout,
            every: body.every,
            weight: body.weight,
            from,
            host: body.host,
            pid: body.pid,
            key: heard.key,
            writer: self.writer,
        }
    }

    /// Says what is odd about an announcement that was accepted.
    fn tell(&self, facts: &Facts, url: Printable<'_>, body: &Body<'_>, from: SocketAddr) {
        let balancer = &self.config.balancer;
        if let Some(before) = facts.reweighted {
            let weight = body.weight;
            log::info!(target: "listen", "weight of {url} in balancer://{balancer} is {weight}, was {before}");
        }
        if let Some(other) = facts.second_source {
            log::warn!(
                target: "listen",
                "{url} of balancer://{balancer} is announced from {} and from {other}: two hosts with one url?",
                from.ip()
            );
        }
        if facts.slow {
            log::warn!(
                target: "listen",
                "{url} announces itself every {:.1} s: with a timeout of {:.1} s, a lost datagram or two evict it",
                Seconds(body.every.unwrap_or_default()),
                Seconds(self.config.timeout)
            );
        }
    }

    fn drop(&mut self, id: BalancerId, reason: Reason, from: SocketAddr, now: Now, shared: &mut Shared) {
        shared.stats.add(reason.counter());
        if reason == Reason::Empty {
            return;
        }
        shared.members.unheard(id, silence(reason));
        log::debug!(target: "listen", "dropped an announcement from {from}: {}", reason.text());
        self.last_drop = Some((reason, from));
        if let Some(count) = self.drops.pass(now.mono) {
            say_dropped(count, reason, from, self.config.listen);
        }
    }

    /// The line about the drops that had none of their own.
    fn tell_drops(&mut self, now: Mono) {
        if let (Some((reason, from)), Some(count)) = (self.last_drop, self.drops.release(now)) {
            say_dropped(count, reason, from, self.config.listen);
        }
    }
}

fn say_dropped(count: u64, reason: Reason, from: SocketAddr, at: SocketAddr) {
    let last = reason.text();
    log::warn!(target: "listen", "dropped {count} announcement(s) (last: {last}) from {from} at {at}");
}

fn silence(reason: Reason) -> Silence {
    match reason {
        Reason::StaleTimestamp => Silence::Stale,
        Reason::MacMismatch => Silence::BadMac,
        _ => Silence::Other,
    }
}
