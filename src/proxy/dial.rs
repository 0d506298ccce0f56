//! A server is found and connected: a member of a balancer, a fixed host, or an upstream proxy that is asked to go on.
//!
//! A try that fails costs nothing while the first flight is still held: the next member or address is tried at once,
//! three in all, within `--connect-deadline`.

use super::balance::{Balance, HashKey};
use super::door::passed_on;
use super::end::End;
use super::pair::Side;
use super::ppv2::{write_v1, write_v2};
use super::relay::retry;
use super::routes::Target;
use super::service::{Part, Proxy, key};
use super::session::{Leg, Session, Stage};
use super::settings::SendProxy;
use super::tunnel::{Answer, Facts, Outcome};
use super::upstreams::Known;
use crate::config::values::HostPort;
use crate::members::MemberId;
use crate::reactor::bank::{carry, connect_tcp, is_want_of_ours, plain};
use crate::reactor::{Cx, Job, Key, Ready, STREAM};
use crate::stats::Counter;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

/// What is said of a try that took too long.
const TOO_LATE: &str = "no answer in time";
/// How often it is tried to connect.
const TRIES: u16 = 3;

impl Proxy {
    /// Takes a session to its target.
    pub(super) fn go(&mut self, at: usize, target: Target, cx: &mut Cx<'_>) {
        let give_up = cx.now.mono.after(self.rules.settings.connect_deadline);
        let Some(early) = self.sessions.get_mut(at).and_then(|session| session.early.as_mut()) else {
            return;
        };
        early.give_up = give_up;
        early.target = target;
        match &early.target {
            Target::Reject => self.end(at, End::Rejected, None, cx),
            Target::Balancer(_) => self.dial(at, cx),
            Target::Host(host) => {
                let host = host.clone();
                self.find(at, &host, cx);
            }
            Target::Connect(host) => {
                let (host, rules) = (host.clone(), Rc::clone(&self.rules));
                let request = self.sessions.get(at).map(|session| session.request(&rules, Vec::new()));
                match request {
                    Some(Err(end)) => self.end(at, end, None, cx),
                    _ => self.find(at, &host, cx),
                }
            }
        }
    }

    /// Finds the addresses of a fixed host.
    fn find(&mut self, at: usize, host: &HostPort, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let Some(early) = &mut session.early else { return };
        let (name, port) = (host.host.as_deref().unwrap_or_default(), host.port.unwrap_or_default());
        if let Some(ip) = host.ip() {
            early.addresses = vec![SocketAddr::new(ip, port)];
            return self.dial(at, cx);
        }
        let stale = self.rules.settings.resolve_interval;
        let (known, look_up) = match self.upstreams.find(name, port, (at, session.id), stale, cx.now.mono) {
            Known::Addresses(addresses, look_up) => (Some(addresses), look_up),
            Known::Nothing(look_up) => (None, look_up),
            Known::Full => return self.end(at, End::ResolveFailed, Some("too many names".to_owned()), cx),
        };
        if let Some(addresses) = known {
            early.addresses = addresses.into_iter().rev().collect();
            self.look_up(look_up, cx);
            return self.dial(at, cx);
        }
        session.stage = Stage::Resolve;
        session.deadline = early.give_up;
        self.watch(at, cx);
        self.look_up(look_up, cx);
    }

    fn look_up(&mut self, number: Option<usize>, cx: &mut Cx<'_>) {
        let Some((number, (host, port))) = number.and_then(|n| Some((n, self.upstreams.name(n)?))) else {
            return;
        };
        let job = Job::Resolve { host: host.to_owned(), port };
        if cx.offload(Key(number), job).is_err() {
            self.resolved(number, Err(ErrorKind::ResourceBusy.into()), cx);
        }
    }

    /// A look-up ended: who waited for it goes on.
    pub(super) fn resolved(&mut self, number: usize, found: io::Result<Vec<SocketAddr>>, cx: &mut Cx<'_>) {
        let why = found.as_ref().err().map(plain);
        let (waiting, addresses) = self.upstreams.found(number, found.unwrap_or_default(), cx.now.mono);
        let addresses: Vec<SocketAddr> = addresses.iter().rev().copied().collect();
        for (at, id) in waiting {
            let session = self.sessions.get_mut(at).filter(|s| s.id == id && s.stage == Stage::Resolve);
            let Some(early) = session.and_then(|session| session.early.as_mut()) else { continue };
            if addresses.is_empty() {
                self.end(at, End::ResolveFailed, why.clone(), cx);
            } else {
                early.addresses.clone_from(&addresses);
                self.dial(at, cx);
            }
        }
    }

    /// Tries the next member or address.
    fn dial(&mut self, at: usize, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let Some(session) = self.sessions.get_mut(at) else { return };
        let Some(early) = &mut session.early else { return };
        let tries = session.facts.tries;
        let next = match &early.target {
            _ if tries >= TRIES => None,
            Target::Balancer(name) if cx.shared.members.find(name).is_none() => None,
            Target::Balancer(name) => {
                let pool = self.pools.of(name);
                self.pools.refresh(cx.shared, cx.now);
                let random = cx.random();
                let hash = session.facts.hash_key(rules.settings.balance);
                let picked = self.pools.pick(pool, &hash, &early.tried, cx.shared, cx.now, random);
                picked.map(|choice| {
                    early.tried.push(choice.id);
                    (choice.addr, Some((pool, choice.id)))
                })
            }
            _ => early.addresses.pop().map(|address| (address, None)),
        };
        match next {
            Some((address, member)) => self.connect(at, address, member, cx),
            None if tries == 0 => self.end(at, End::NoMember, None, cx),
            None => {
                let late = session.facts.why.as_deref() == Some(TOO_LATE);
                self.end(at, if late { End::ConnectTimeout } else { End::ConnectFailed }, None, cx);
            }
        }
    }

    fn connect(&mut self, at: usize, to: SocketAddr, member: Option<(usize, MemberId)>, cx: &mut Cx<'_>) {
        self.watch_returns(cx);
        let timeout = self.rules.settings.connect_timeout;
        let Some(session) = self.sessions.get_mut(at) else { return };
        let facts = &mut session.facts;
        facts.tries += 1;
        facts.server = Some(to);
        facts.member = member;
        if facts.tries > 1 {
            cx.shared.stats.add(Counter::ProxyRetry);
        }
        if let Some(member) = member {
            self.pools.opened(member);
        }
        let connected = connect_tcp(to).and_then(|mut stream| {
            let registration = cx.register(&mut stream, key(at, Part::Server), STREAM)?;
            Ok(Leg { stream, registration })
        });
        match connected {
            Ok(leg) => {
                session.server = Some(leg);
                session.stage = Stage::Connect;
                let give_up = session.early.as_ref().map_or(cx.now.mono, |early| early.give_up);
                session.deadline = give_up.min(cx.now.mono.after(timeout));
                self.watch(at, cx);
            }
            // No fault of the member's, and with another one it would be the same.
            Err(e) if is_want_of_ours(&e) => self.end(at, End::ConnectFailed, Some(plain(&e)), cx),
            Err(e) => self.not_connected(at, &plain(&e), cx),
        }
    }

    /// An event of a connection that is being made.
    pub(super) fn connecting(&mut self, at: usize, ready: Ready, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get(at) else { return };
        let Some(stream) = session.stream(Side::Server) else { return };
        match stream.take_error() {
            Ok(Some(e)) | Err(e) => self.not_connected(at, &plain(&e), cx),
            Ok(None) if ready.writable => self.connected(at, cx),
            Ok(None) => {}
        }
    }

    /// A try took too long.
    pub(super) fn connect_late(&mut self, at: usize, cx: &mut Cx<'_>) {
        self.not_connected(at, TOO_LATE, cx);
    }

    /// A try failed: on to the next one.
    fn not_connected(&mut self, at: usize, why: &str, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.trace(cx, &format_args!("connect failed: {why}"));
        session.facts.why = Some(why.into());
        session.pair.renew(Side::Server);
        if let Some(leg) = session.server.take() {
            cx.forget(leg.registration);
        }
        let give_up = session.early.as_ref().map_or(cx.now.mono, |early| early.give_up);
        if let Some(member) = session.facts.member.take() {
            self.pools.closed(member, (0, 0));
            if let Some((url, time)) = self.pools.failed(member, cx.shared, cx.now) {
                cx.shared.stats.add(Counter::ProxyEjected);
                log::warn!(target: "proxy", "left out {url} for {} s: connections to it fail ({why})", time.as_secs());
            }
        }
        self.watch_returns(cx);
        if cx.now.mono >= give_up {
            return self.end(at, End::ConnectTimeout, None, cx);
        }
        self.dial(at, cx);
    }

    fn connected(&mut self, at: usize, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.facts.connected_at = Some(cx.now.mono);
        session.facts.why = None;
        if let Some(member) = session.facts.member {
            self.pools.connected(member, cx.now.mono);
        }
        let Some(leg) = &session.server else { return };
        // Without these it works as well, only less so.
        let _ = carry(&leg.stream);
        session.trace(cx, &format_args!("connected to {}", Shown(session.facts.server)));
        let head = session.proxy_header(rules.settings.send_proxy);
        if !matches!(session.early.as_ref().map(|early| &early.target), Some(Target::Connect(_))) {
            return self.begin(at, head, cx);
        }
        match session.request(&rules, head) {
            Ok(request) => {
                let Some(early) = &mut session.early else { return };
                early.request = (request, 0);
                early.answer = Some(Answer::new());
                session.stage = Stage::Answer;
                session.deadline = early.give_up;
                self.watch(at, cx);
                self.answering(at, cx);
            }
            Err(end) => self.end(at, end, None, cx),
        }
    }

    /// Sends the request to an upstream proxy, and reads its answer.
    pub(super) fn answering(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        match session.talk(cx.scratch) {
            Ok(None) => {}
            Ok(Some((Outcome::Open { .. }, rest))) => {
                if !rest.is_empty() {
                    session.hold(Side::Server, rest, &mut self.means);
                }
                self.begin(at, Vec::new(), cx);
            }
            Ok(Some((Outcome::Refused(status), _))) => {
                self.end(at, End::UpstreamRefused, Some(format!("status {status}")), cx);
            }
            Ok(Some((Outcome::Bad(e), _))) => self.end(at, End::UpstreamBad, Some(e.to_string()), cx),
            Err(e) => self.end(at, End::UpstreamBad, Some(plain(&e)), cx),
        }
    }

    /// Lets bytes flow: what is to stand in front, the first flight, and everything behind it.
    fn begin(&mut self, at: usize, mut head: Vec<u8>, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let Some(early) = session.early.take() else { return };
        session.facts.extra = head.len();
        let bare = !head.is_empty() && early.flight.stream().is_empty();
        head.extend_from_slice(early.flight.stream());
        if bare && session.pair.has_news(Side::Client) {
            // One segment for both, as the specification of the header wants it.
            let room = &mut cx.scratch[..SEGMENT];
            match retry(|| session.client.stream.read(room)) {
                Ok(0) => session.pair.ended(Side::Client),
                Ok(count) => {
                    head.extend_from_slice(&room[..count]);
                    session.pair.read(Side::Client, 0, 0);
                }
                // A reset is told only once.
                Err(e) => session.failed_to_read(Side::Client, &e),
            }
        }
        if !head.is_empty() {
            session.hold(Side::Client, head, &mut self.means);
        }
        session.stage = Stage::Relay;
        session.deadline = crate::clock::Mono::NEVER;
        session.active = cx.now.mono;
        session.pair.event(Side::Server, false, true, false);
        // Its member may have gone while it was connected.
        self.judge(at, cx);
        self.relay(at, cx);
    }
}

impl Session {
    /// The header that tells the server who the client is.
    fn proxy_header(&self, version: Option<SendProxy>) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(version) = version else { return out };
        let (src, dst) = (self.facts.src, self.destination());
        let header = self.early.as_ref().and_then(|early| early.flight.header());
        let fields = passed_on(header, self.facts.sni.as_deref());
        // What does not fit goes without its fields: the addresses matter most.
        if version == SendProxy::V1 {
            write_v1(src, dst, &mut out);
        } else if write_v2(src, dst, &fields, &mut out).is_err() {
            let _ = write_v2(src, dst, &super::ppv2::Outgoing::default(), &mut out);
        }
        out
    }

    /// The request for a tunnel, behind `head`.
    fn request(&self, rules: &super::rules::Rules, head: Vec<u8>) -> Result<Vec<u8>, End> {
        let facts = Facts {
            client: self.facts.src,
            sni: self.facts.sni.as_deref(),
            authority: self.facts.authority.as_deref(),
            hostname: &rules.hostname,
            country: rules.settings.country.as_deref().unwrap_or_default(),
        };
        let dst = self.destination();
        // Without a name, what the client connected to, if another proxy tells.
        let address = self.facts.dst.map(|dst| dst.ip().to_string());
        let (host, port) = facts
            .wanted(dst.port())
            .or(address.as_deref().map(|host| (host, dst.port())))
            .ok_or(End::NoHost)?;
        let mut out = head;
        rules.headers.request(host, port, &facts, &mut out).map_err(|_| End::NoHost)?;
        Ok(out)
    }

    /// Goes on with the exchange with an upstream proxy: what it came to, and what is behind the answer.
    fn talk(&mut self, scratch: &mut [u8]) -> io::Result<Option<(Outcome, Vec<u8>)>> {
        let (Some(early), Some(leg)) = (&mut self.early, &mut self.server) else { return Ok(None) };
        let (request, sent) = &mut early.request;
        while let Some(rest) = request.get(*sent..).filter(|rest| !rest.is_empty()) {
            match retry(|| leg.stream.write(rest)) {
                Ok(count) => *sent += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        let piece = scratch.len().min(PIECE);
        loop {
            let count = match retry(|| leg.stream.read(&mut scratch[..piece])) {
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e),
            };
            if count == 0 {
                return Ok(early.answer.take().map(|answer| (answer.end(), Vec::new())));
            }
            let Some(outcome) = early.answer.as_mut().and_then(|answer| answer.feed(&scratch[..count]))
            else {
                continue;
            };
            let used = if let Outcome::Open { used } = outcome { used } else { count };
            self.pair.event(Side::Server, true, true, false);
            return Ok(Some((outcome, scratch[used..count].to_vec())));
        }
    }
}

impl super::session::Facts {
    /// The bytes by which a session finds the same member again.
    fn hash_key(&self, how: Balance) -> Vec<u8> {
        let name = |text: &Option<Box<str>>| text.as_ref().map(|text| text.to_ascii_lowercase().into_bytes());
        let named = match how {
            Balance::Hash(HashKey::Sni) => name(&self.sni),
            Balance::Hash(HashKey::Authority) => name(&self.authority),
            Balance::Hash(HashKey::Source) => None,
            _ => return Vec::new(),
        };
        // Who names nothing is told apart by its address.
        named.unwrap_or_else(|| match super::access::source_key(self.src.ip()) {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        })
    }
}

/// The most that is read of a client's stream to go out together with the header in front of it.
const SEGMENT: usize = 16 << 10;
/// The most that is read of an answer at once; what is behind it belongs to the client.
const PIECE: usize = 4096;

/// An address, if there is one.
struct Shown(Option<SocketAddr>);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}
