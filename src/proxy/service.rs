//! The proxy at work: its listener, its sessions, and the loop's calls handed to those who know what to do.
//!
//! - `door`: connections come in, within limits. `opening`: what their first flight says, who may in, which route.
//! - `dial`: a server is found and connected, an upstream proxy asked. `relay`: bytes flow.
//! - `ending`: a session ends, and leaves its line.

use super::access::PerSource;
use super::balance;
use super::dump::Ring;
use super::ledger::Ledger;
use super::limits::Limits;
use super::pair::Side;
use super::pools::Pools;
use super::relay::Means;
use super::routes::Target;
use super::rules::Rules;
use super::session::{Leg, Session, Stage};
use super::settings::Settings;
use super::splice::Pipes;
use super::upstreams::Upstreams;
use super::verdict::Cache;
use crate::bytes::LogGate;
use crate::clock::{Mono, Now};
use crate::reactor::bank::{descriptor_limit, listen_again};
use crate::reactor::{Cx, Done, Form, Key, Ready, Registration, Service, Socket, SocketSpec};
use crate::shared::Shared;
use crate::wheel::TimerId;
use mio::Interest;
use mio::net::TcpListener;
use slab::Slab;
use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A proxy: one address where it listens, and the sessions that came in there.
pub struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) rules: Rc<Rules>,
    /// For each route, its row in the ledger.
    pub(super) rows: Vec<usize>,
    pub(super) door: Option<(TcpListener, Registration)>,
    /// Out of descriptors: when to accept again.
    pub(super) breath: Option<TimerId>,
    /// When a member that was left out is back.
    pub(super) returns: Option<TimerId>,
    /// The program or a reload ends this proxy: no session comes in any more.
    pub(super) leaving: bool,
    /// How many sessions there may be.
    pub(super) limit: usize,
    /// Connections wait in the kernel because there are that many.
    pub(super) full: bool,
    pub(super) sessions: Slab<Session>,
    /// Sessions at their first flight, the oldest first; some may be past it by now.
    pub(super) hellos: VecDeque<(usize, u64)>,
    /// How many of them are.
    pub(super) at_hello: usize,
    pub(super) sources: PerSource,
    pub(super) pools: Pools,
    pub(super) upstreams: Upstreams,
    pub(super) answers: Cache<Target>,
    pub(super) ledger: Ledger,
    pub(super) dumps: Ring,
    /// What is said of each dump once it is written.
    pub(super) dumping: Vec<(usize, String)>,
    pub(super) means: Means,
    pub(super) gates: Gates,
}

/// The listener's source, and the timer of its breath.
pub(super) const LISTENER: Key = Key(0);
/// The timer of the end of draining.
const DRAINED: Key = Key(1);
/// The timer of the members that were left out.
pub(super) const RETURNS: Key = Key(2);

/// One line a second of each kind of complaint, so that none hides another.
#[derive(Debug)]
pub(super) struct Gates {
    /// Sessions ended early.
    pub(super) ended: LogGate,
    /// Nobody can be let in.
    pub(super) accept: LogGate,
    /// There is no verdict from `--auth`.
    pub(super) auth: LogGate,
    /// A dump cannot be written.
    pub(super) dump: LogGate,
}

impl Default for Gates {
    fn default() -> Gates {
        let gate = || LogGate::new(Duration::from_secs(1));
        Gates { ended: gate(), accept: gate(), auth: gate(), dump: gate() }
    }
}

/// What a key of a session stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Client,
    Server,
    /// There is more to relay.
    Run,
    /// The connection to the program behind `--auth`.
    Hook,
}

/// The key of a session's part. A timer of the session has that of its client.
pub(super) fn key(at: usize, part: Part) -> Key {
    Key((at + 1) * 4 + part as usize)
}

impl Proxy {
    /// A proxy that has not started.
    #[must_use]
    pub fn new(address: SocketAddr, rules: Rules) -> Proxy {
        let settings = &rules.settings;
        Proxy {
            address,
            rows: Vec::new(),
            door: None,
            breath: None,
            returns: None,
            leaving: false,
            limit: 0,
            full: false,
            sessions: Slab::new(),
            hellos: VecDeque::new(),
            at_hello: 0,
            sources: PerSource::new(settings.max_sessions_per_source),
            pools: Pools::new(format!("proxy:{address}"), pool_config(settings)),
            upstreams: Upstreams::default(),
            answers: Cache::new(cache_time(settings)),
            ledger: Ledger::default(),
            dumps: Ring::new(settings.dump.as_ref().map_or(1, |dump| dump.files)),
            dumping: Vec::new(),
            means: Means { pipes: Pipes::new(0), held: 0, most_held: settings.max_buffered },
            gates: Gates::default(),
            rules: Rc::new(rules),
        }
    }

    fn spec(&self) -> SocketSpec {
        SocketSpec::Tcp { addr: self.address, backlog: self.rules.settings.backlog }
    }

    /// Puts the rules in force: their routes get rows, their balancers pools.
    fn govern(&mut self, cx: &mut Cx<'_>) {
        let rules = Rc::clone(&self.rules);
        let routes = rules.routes.iter();
        self.rows = self.ledger.list(routes.map(|r| (r.matches.to_string(), &r.target as &dyn ToString)));
        let settings = &rules.settings;
        self.sources.set_limit(settings.max_sessions_per_source);
        self.pools.reconfigure(pool_config(settings));
        for balancer in rules.routes.balancers() {
            self.pools.of(balancer);
        }
        let limits = Limits::of(descriptor_limit(), rules.proxies, settings.max_sessions);
        self.means.pipes.bound(if settings.splice { limits.pipes } else { 0 });
        self.means.most_held = settings.max_buffered;
        self.limit = limits.sessions;
        self.pools.refresh(cx.shared, cx.now);
    }

    fn open_door(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        let Socket::Tcp(mut listener) = cx.take_socket(&self.spec())? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let at = listener.local_addr()?;
        let registration = cx.register(&mut listener, LISTENER, Interest::READABLE)?;
        self.door = Some((listener, registration));
        log::info!(target: "proxy", "listening for connections on {at} (up to {} sessions)", self.limit);
        Ok(())
    }

    /// Where it really listens, if it does.
    pub(super) fn listens_at(&self) -> SocketAddr {
        let door = self.door.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
        door.unwrap_or(self.address)
    }

    fn close_door(&mut self, spec: &SocketSpec, cx: &mut Cx<'_>) {
        if let Some((mut listener, registration)) = self.door.take() {
            cx.deregister(&mut listener, registration);
            cx.give_back(spec, Socket::Tcp(listener));
        }
    }

    /// An event of one of a session's connections.
    fn leg_ready(&mut self, at: usize, side: Side, ready: Ready, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        session.pair.event(side, ready.readable, ready.writable, ready.ended);
        if ready.urgent {
            session.pair.marked(side);
        }
        match (session.stage, side) {
            (Stage::Relay, _) => {
                if ready.failed {
                    session.look_for_reset(side);
                }
                self.relay(at, cx);
            }
            (Stage::Flight, Side::Client) => self.read_flight(at, cx),
            (_, Side::Client) if ready.failed => self.client_gone(at, cx),
            (_, Side::Client) => {}
            (Stage::Connect, Side::Server) => self.connecting(at, ready, cx),
            (Stage::Answer, Side::Server) => self.answering(at, cx),
            (_, Side::Server) => {}
        }
    }

    /// Sees to it that the session's timer goes off at its deadline, or before.
    pub(super) fn watch(&mut self, at: usize, cx: &mut Cx<'_>) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        let due = session.due(&self.rules.settings);
        if session.timer.as_ref().is_some_and(|(_, armed)| *armed <= due) {
            return;
        }
        if let Some((timer, _)) = session.timer.take() {
            cx.cancel(timer);
        }
        if due < Mono::NEVER {
            session.timer = Some((cx.arm(key(at, Part::Client), due), due));
        }
    }

    /// The places of all sessions, for who may end them meanwhile.
    pub(super) fn all(&self) -> Vec<usize> {
        self.sessions.iter().map(|(at, _)| at).collect()
    }
}

impl Session {
    /// The time at which something must be done about it, if nothing moves until then.
    fn due(&self, settings: &Settings) -> Mono {
        match (self.stage, &self.early) {
            (Stage::Relay, _) => self.deadline.min(self.silent_until(settings)),
            (Stage::Auth, Some(early)) => self.deadline.min(early.ask_again),
            _ => self.deadline,
        }
    }

    /// When it has been silent for too long.
    pub(super) fn silent_until(&self, settings: &Settings) -> Mono {
        let half = self.pair.is_half_closed();
        let mut time = if half { settings.half_close_timeout } else { settings.idle_timeout };
        if self.is_alone() {
            time = Some(time.map_or(LINGER, |time| time.min(LINGER)));
        }
        time.map_or(Mono::NEVER, |time| self.active.after(time))
    }

    /// Whether one side is gone, and what the other still sends is thrown away.
    pub(super) fn is_alone(&self) -> bool {
        self.pair.is_void(Side::Client) || self.pair.is_void(Side::Server)
    }

    /// The connection of a side failed.
    fn look_for_reset(&mut self, side: Side) {
        let error = self.stream(side).and_then(|stream| stream.take_error().ok().flatten());
        if let Some(error) = error {
            self.pair.reset(side, super::relay::is_after_end(error.kind()));
        }
    }

    /// The leg of a side, to be watched no longer.
    pub(super) fn legs(self) -> (Leg, Option<Leg>) {
        (self.client, self.server)
    }
}

impl Service for Proxy {
    fn name(&self) -> String {
        format!("proxy:{}", self.address)
    }

    fn sockets(&self) -> Vec<SocketSpec> {
        vec![self.spec()]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.govern(cx);
        self.resume_dumps();
        self.open_door(cx)
    }

    fn ready(&mut self, key: Key, ready: Ready, cx: &mut Cx<'_>) {
        let Some(at) = (key.0 / 4).checked_sub(1) else { return self.accept(cx) };
        match key.0 % 4 {
            0 => self.leg_ready(at, Side::Client, ready, cx),
            1 => self.leg_ready(at, Side::Server, ready, cx),
            2 => self.relay(at, cx),
            _ => self.hook_ready(at, cx),
        }
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        match key {
            LISTENER => {
                self.breath = None;
                self.accept(cx);
            }
            DRAINED => self.end_all(cx),
            RETURNS => self.returned(cx),
            Key(key) => {
                if let Some(session) = self.sessions.get_mut(key / 4 - 1) {
                    session.timer = None;
                    self.session_timer(key / 4 - 1, cx);
                }
            }
        }
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        match result {
            Done::Resolved(found) => self.resolved(key.0, found, cx),
            Done::Written(result) => self.dumped(key.0, result, cx),
            _ => {}
        }
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        self.pools.refresh(cx.shared, cx.now);
        if self.pools.take_moved() {
            self.judge_members(cx);
        }
        self.watch_returns(cx);
    }

    fn reload(&mut self, new: Box<dyn Service>, cx: &mut Cx<'_>) -> Option<Box<dyn Service>> {
        // Who listens elsewhere has another name, and is another service.
        if !(&*new as &dyn Any).is::<Proxy>() || self.leaving || new.name() != self.name() {
            return Some(new);
        }
        let Ok(new) = (new as Box<dyn Any>).downcast::<Proxy>() else { return None };
        self.rules = new.rules;
        self.answers = new.answers;
        self.dumps = new.dumps;
        self.govern(cx);
        self.resume_dumps();
        if let Some((listener, _)) = &self.door {
            listen_again(listener, self.rules.settings.backlog);
        }
        self.judge_members(cx);
        // Who waited for room or grows idle in silence makes no event.
        self.full = false;
        cx.again(LISTENER);
        for at in self.all() {
            self.watch(at, cx);
        }
        None
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.end_all(cx);
        let spec = self.spec();
        self.close_door(&spec, cx);
        self.pools.withdraw(cx.shared);
    }

    fn drain(&mut self, cx: &mut Cx<'_>) -> bool {
        if !self.leaving {
            // Whom the kernel has let in already: as many as it keeps, and one.
            self.let_in(usize::from(self.rules.settings.backlog) + 1, cx);
            self.leaving = true;
            let spec = self.spec();
            self.close_door(&spec, cx);
            self.pools.withdraw(cx.shared);
            if !self.sessions.is_empty() {
                log::info!(target: "proxy", "{}: {} sessions go on for up to {:?}",
                    self.address, self.sessions.len(), self.rules.settings.drain_timeout);
                cx.arm(DRAINED, cx.now.mono.after(self.rules.settings.drain_timeout));
            }
        }
        self.sessions.is_empty()
    }

    fn sessions(&self, form: Form, now: Now, shared: &Shared, out: &mut String) {
        self.overview(form, now, shared, out);
    }

    fn patience(&self) -> Duration {
        self.rules.settings.drain_timeout
    }
}

/// How long a peer is listened to when nobody takes any more what it sends: long enough for it to read what it was sent,
/// which a reset might take from it.
const LINGER: Duration = Duration::from_secs(5);
fn pool_config(settings: &Settings) -> balance::Config {
    balance::Config { how: settings.balance, slow_start: settings.slow_start }
}

fn cache_time(settings: &Settings) -> Duration {
    settings.auth.as_ref().map_or(Duration::ZERO, |auth| auth.cache)
}
