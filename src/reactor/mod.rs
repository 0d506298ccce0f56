//! The loop: one thread, one poll, services that own their state and never block.
//!
//! A turn: poll until the earliest deadline; read the clocks once; hand out what became ready, the timers that are
//! due, the jobs that came back; let the member table expire; tell everybody once if members changed. This is the
//! only place with `mio::Poll` and the only one that reads clocks. It knows tokens, timers and services; it never
//! knows what a service is for.

pub mod bank;
mod clock;
mod cx;
pub mod log_pipe;
pub mod offload;
mod signals;
pub mod udp;

pub use bank::{Socket, SocketSpec};
pub use clock::unix_us;
pub use cx::{Cx, Registration};
pub use log_pipe::LogPipe;
pub use offload::{Done, Full, Job};
pub use signals::Signal;

use crate::clock::{Mono, Now};
use crate::members::{BalancerId, Policy};
use crate::shared::Shared;
use crate::wheel::Wheel;
use bank::Bank;
use clock::Clock;
use cx::Source;
use mio::event::Event;
use mio::{Events, Poll, Registry, Token, Waker};
use offload::Offload;
use signals::Signals;
use slab::Slab;
use std::any::Any;
use std::io;
use std::time::Duration;

/// A service's own number for a source, a timer or a job.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key(pub usize);

/// Why a source is ready. With [`Cx::again`] both are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Reading makes progress, or says why it cannot.
    pub readable: bool,
    /// Writing makes progress, or says why it cannot.
    pub writable: bool,
}

/// What runs in the loop: a role of the configuration, or a part of the program with sockets or timers.
pub trait Service: Any {
    /// Its name in log lines, and who it is across a reload: `haproxy:web`.
    fn name(&self) -> String;

    /// The sockets that [`Service::start`] will take from the bank.
    fn sockets(&self) -> Vec<SocketSpec> {
        Vec::new()
    }

    /// Takes sockets, registers them, arms timers. The only call that may fail.
    ///
    /// # Errors
    /// Ends the program at its start; at a reload the service is dropped and the error logged.
    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()>;

    /// A source it registered is ready. At most 64 receives or accepts; [`Cx::again`] if more is left, for events
    /// are edge-triggered. Expect spurious ones.
    fn ready(&mut self, _key: Key, _ready: Ready, _cx: &mut Cx<'_>) {}

    /// A timer it armed is due.
    fn timer(&mut self, _key: Key, _cx: &mut Cx<'_>) {}

    /// A job it gave away is done.
    fn done(&mut self, _key: Key, _result: Done, _cx: &mut Cx<'_>) {}

    /// Members came, went or changed; at most once a turn. Compare the balancer's revision.
    fn members_changed(&mut self, _cx: &mut Cx<'_>) {}

    /// A child of the process ended: poll your own.
    fn child_exited(&mut self, _cx: &mut Cx<'_>) {}

    /// At a reload, before `start`: takes over what it wants from its predecessor of the same name.
    fn inherit(&mut self, _old: Box<dyn Any>) {}

    /// Puts bank sockets back, deregisters everything. Timers and jobs under way are forgotten by the loop.
    fn stop(&mut self, cx: &mut Cx<'_>);

    /// The program ends, or a reload removed this service: finish what must be finished. Asked after every turn
    /// until it says `true`; then `stop` follows.
    fn drain(&mut self, _cx: &mut Cx<'_>) -> bool {
        true
    }
}

/// A service ready to run, and what its configuration was: the same text means nothing changed.
pub struct Planned {
    /// The service, not started.
    pub service: Box<dyn Service>,
    /// Its section's effective text and the bytes of every file it names.
    pub fingerprint: String,
}

/// What a configuration comes to.
#[derive(Default)]
pub struct Plan {
    /// The services to run, in order.
    pub services: Vec<Planned>,
    /// The balancers and their policies.
    pub balancers: Vec<(String, Policy)>,
}

/// Makes a [`Plan`] anew for a reload; reads files, opens nothing. `Err` is one line for the user.
pub type Planner = Box<dyn FnMut() -> Result<Plan, String>>;

/// Names one running service; a later service in the same place has another generation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ServiceId {
    index: usize,
    generation: u32,
}

struct Slot {
    generation: u32,
    name: String,
    fingerprint: String,
    /// Absent while one of its methods runs.
    service: Option<Box<dyn Service>>,
    draining: bool,
}

/// Everything of the loop that a [`Cx`] lends to a service.
pub(crate) struct Core {
    registry: Registry,
    sources: Slab<Option<Source>>,
    /// Slots whose source is gone; reusable after the batch, so that a late event cannot hit a newcomer.
    freed: Vec<usize>,
    wheel: Wheel<(ServiceId, Key)>,
    again: Vec<(ServiceId, Key)>,
    bank: Bank,
    offload: Offload,
    random: u64,
    stopping: bool,
    reload_for: Vec<(ServiceId, Key)>,
    reload: bool,
}

/// The loop and all that runs in it.
pub struct Reactor {
    poll: Poll,
    clock: Clock,
    signals: Signals,
    log: LogPipe,
    core: Core,
    services: Slab<Slot>,
    generation: u32,
    shared: Shared,
    scratch: Box<[u8]>,
    planner: Planner,
    stop_by: Option<Mono>,
    /// Turns in a row in which some service had more to receive.
    busy: u32,
}

const SIGNALS: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
const STDERR: Token = Token(usize::MAX - 3);

/// How long services may take to finish after the first TERM.
const DRAIN: Duration = Duration::from_secs(5);

/// How many busy turns may hold back expiry: what lies in a socket may yet refresh a member.
const BUSY_TURNS: u32 = 64;

/// Timer wheel ticks per second of the clock: the wheel counts milliseconds, the clock microseconds.
const TICK: u64 = 1000;

impl Reactor {
    /// A loop without services. `planner` is asked at a reload.
    ///
    /// # Errors
    /// What the system says about poll, pipes and signal handlers.
    pub fn new(log: LogPipe, planner: Planner) -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let offload = Offload::new(Waker::new(&registry, WAKER)?);
        let signals = Signals::new(&registry, SIGNALS)?;
        let mut seeds = [0u64; 3];
        for seed in &mut seeds {
            *seed = getrandom::u64().map_err(io::Error::other)?;
        }
        let core = Core {
            registry,
            sources: Slab::new(),
            freed: Vec::new(),
            wheel: Wheel::new(),
            again: Vec::new(),
            bank: Bank::default(),
            offload,
            random: seeds[2],
            stopping: false,
            reload_for: Vec::new(),
            reload: false,
        };
        let clock = Clock::new();
        Ok(Reactor {
            poll,
            signals,
            log,
            core,
            services: Slab::new(),
            generation: 0,
            shared: Shared::new([seeds[0], seeds[1]], clock.read().mono),
            clock,
            scratch: vec![0; udp::SCRATCH].into_boxed_slice(),
            planner,
            stop_by: None,
            busy: 0,
        })
    }

    /// Opens the sockets of `plan`; nothing runs yet, so privileges can be dropped between this and
    /// [`Reactor::start`].
    ///
    /// # Errors
    /// One line: which socket, why, what to do.
    pub fn open(&mut self, plan: &Plan) -> Result<(), String> {
        let wanted: Vec<SocketSpec> = plan.services.iter().flat_map(|p| p.service.sockets()).collect();
        self.core.bank.open_missing(&wanted)
    }

    /// Starts the services of a plan whose sockets are open.
    ///
    /// # Errors
    /// One line, of the first service that could not start.
    pub fn start(&mut self, plan: Plan) -> Result<(), String> {
        let now = self.clock.read();
        self.govern(plan.balancers, now);
        for planned in plan.services {
            if let Err(why) = self.launch(planned, now) {
                self.close_all(now);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Runs until a signal or a service ends the program and every service has drained.
    ///
    /// # Errors
    /// Only when polling itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(256);
        loop {
            self.log.watch(&self.core.registry, STDERR);
            let timeout = self.timeout();
            if let Err(e) = self.poll.poll(&mut events, timeout) {
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e);
            }
            if self.turn(&events) {
                self.finish();
                return Ok(());
            }
        }
    }

    /// One turn after a poll; `true` when the program is to end.
    fn turn(&mut self, events: &Events) -> bool {
        let now = self.clock.read();
        for event in events {
            self.event(event, now);
        }
        for (id, key) in std::mem::take(&mut self.core.again) {
            self.call(id, now, |s, cx| s.ready(key, Ready { readable: true, writable: true }, cx));
        }
        while let Some((id, key)) = self.core.wheel.pop(now.mono.0 / TICK) {
            self.call(id, now, |s, cx| s.timer(key, cx));
        }
        self.expire(now);
        if self.shared.take_moved() {
            for id in self.running() {
                self.call(id, now, |s, cx| s.members_changed(cx));
            }
        }
        if std::mem::take(&mut self.core.reload) && !self.core.stopping {
            self.reload(now);
        }
        if self.core.stopping && self.stop_by.is_none() {
            self.stop_by = Some(now.mono.after(DRAIN));
        }
        let idle = self.drain(now);
        for token in self.core.freed.drain(..) {
            self.core.sources.remove(token);
        }
        self.stop_by.is_some_and(|by| idle || now.mono >= by)
    }

    fn event(&mut self, event: &Event, now: Now) {
        match event.token() {
            WAKER => {
                for (id, key, done) in self.core.offload.finished() {
                    self.call(id, now, |s, cx| s.done(key, done, cx));
                }
            }
            SIGNALS => self.signals(now),
            STDERR => self.log.drain(&self.core.registry),
            Token(token) => {
                let Some(Some(source)) = self.core.sources.get(token) else { return };
                let (id, key) = (source.service, source.key);
                // An error or a hang-up makes progress either way: the service's next read or write tells it why.
                let closed = event.is_error() || event.is_read_closed() || event.is_write_closed();
                let ready = Ready {
                    readable: event.is_readable() || closed,
                    writable: event.is_writable() || closed,
                };
                self.call(id, now, |s, cx| s.ready(key, ready, cx));
            }
        }
    }

    fn signals(&mut self, now: Now) {
        let pending: Vec<Signal> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                Signal::Stop if self.stop_by.is_some() => self.stop_by = Some(now.mono),
                Signal::Stop => {
                    log::info!(target: "beacond", "stopping");
                    self.core.stopping = true;
                }
                Signal::Reload => self.core.reload = true,
                Signal::Child => {
                    for id in self.running() {
                        self.call(id, now, |s, cx| s.child_exited(cx));
                    }
                }
            }
        }
    }

    /// Lets the table expire, unless datagrams that may refresh a member still lie in a socket.
    fn expire(&mut self, now: Now) {
        self.busy = if self.core.again.is_empty() { 0 } else { self.busy + 1 };
        if self.busy == 0 || self.busy > BUSY_TURNS {
            self.shared.expire(now.mono);
        }
    }

    /// Until the earliest deadline, from a fresh reading; `None`: until something happens.
    fn timeout(&mut self) -> Option<Duration> {
        if !self.core.again.is_empty() || self.core.reload {
            return Some(Duration::ZERO);
        }
        let timer = self.core.wheel.next().map(|ms| Mono(ms.saturating_mul(TICK)));
        let deadline =
            [timer, self.shared.members.next_deadline(), self.stop_by].into_iter().flatten().min()?;
        Some(deadline.since(self.clock.read().mono))
    }

    /// Plans anew and replaces what changed, or says why not and changes nothing.
    fn reload(&mut self, now: Now) {
        let result = self.replan(now);
        match &result {
            Ok(()) => log::info!(target: "beacond", "configuration reloaded"),
            Err(e) => log::error!(target: "beacond", "reload failed, nothing changed: {e}"),
        }
        for (id, key) in std::mem::take(&mut self.core.reload_for) {
            let done = Done::Reloaded(result.clone());
            self.call(id, now, |s, cx| s.done(key, done, cx));
        }
    }

    fn replan(&mut self, now: Now) -> Result<(), String> {
        let plan = (self.planner)()?;
        self.open(&plan)?;
        // Committed: from here on nothing fails for the configuration's sake.
        self.govern(plan.balancers, now);
        let mut old = self.running();
        old.retain(|id| !self.services[id.index].draining);
        let mut changed = Vec::new();
        for planned in plan.services {
            let name = planned.service.name();
            let same = |id: &ServiceId| {
                let slot = &self.services[id.index];
                slot.name == name && slot.fingerprint == planned.fingerprint
            };
            match old.iter().position(same) {
                Some(at) => drop(old.remove(at)),
                None => changed.push((name, planned)),
            }
        }
        for (name, mut planned) in changed {
            let predecessor = old.iter().position(|id| self.services[id.index].name == name);
            if let Some(retired) = predecessor.and_then(|at| self.retire(old.remove(at), now)) {
                planned.service.inherit(retired);
            }
            if let Err(e) = self.launch(planned, now) {
                log::error!(target: "beacond", "{e}");
            }
        }
        for id in old {
            self.services[id.index].draining = true;
        }
        Ok(())
    }

    /// Puts policies in force; balancers that nobody names any more are gone.
    fn govern(&mut self, balancers: Vec<(String, Policy)>, now: Now) {
        let members = &mut self.shared.members;
        let gone: Vec<BalancerId> = members
            .balancers()
            .filter(|(_, name)| !balancers.iter().any(|(kept, _)| kept == name))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            members.remove(id);
        }
        for (name, policy) in balancers {
            members.balancer(&name, policy, now.mono);
        }
    }

    fn launch(&mut self, planned: Planned, now: Now) -> Result<(), String> {
        self.generation = self.generation.wrapping_add(1);
        let name = planned.service.name();
        let index = self.services.insert(Slot {
            generation: self.generation,
            name: name.clone(),
            fingerprint: planned.fingerprint,
            service: Some(planned.service),
            draining: false,
        });
        let id = ServiceId { index, generation: self.generation };
        let mut started = Ok(());
        self.call(id, now, |s, cx| started = s.start(cx));
        started.map_err(|e| {
            self.retire(id, now);
            format!("{name}: cannot start: {}", bank::plain(&e))
        })
    }

    /// Stops a service and takes it out of the loop.
    fn retire(&mut self, id: ServiceId, now: Now) -> Option<Box<dyn Service>> {
        self.call(id, now, |s, cx| s.stop(cx));
        let slot = self.services.try_remove(id.index)?;
        for (token, source) in &mut self.core.sources {
            // A source that `stop` forgot must not speak for a service that is gone.
            if source.as_ref().is_some_and(|s| s.service == id) {
                *source = None;
                self.core.freed.push(token);
            }
        }
        slot.service
    }

    /// Asks who is leaving whether it is done; `true` when nobody is left to wait for.
    fn drain(&mut self, now: Now) -> bool {
        let mut idle = true;
        for id in self.running() {
            if !self.core.stopping && !self.services[id.index].draining {
                continue;
            }
            let mut done = false;
            self.call(id, now, |s, cx| done = s.drain(cx));
            if done && !self.core.stopping {
                self.retire(id, now);
            }
            idle &= done;
        }
        if !self.core.stopping {
            self.core.bank.close_idle();
        }
        idle
    }

    /// The end: every service stops, the log goes out.
    fn finish(&mut self) {
        let now = self.clock.read();
        self.close_all(now);
        log::info!(target: "beacond", "stopped");
        self.log.drain(&self.core.registry);
    }

    fn close_all(&mut self, now: Now) {
        for id in self.running() {
            self.retire(id, now);
        }
        self.core.bank.close_idle();
    }

    fn running(&self) -> Vec<ServiceId> {
        self.services.iter().map(|(index, slot)| ServiceId { index, generation: slot.generation }).collect()
    }

    /// Calls a service, with everything else of the loop at its hand.
    fn call(&mut self, id: ServiceId, now: Now, act: impl FnOnce(&mut dyn Service, &mut Cx<'_>)) {
        let Some(slot) = self.services.get_mut(id.index).filter(|s| s.generation == id.generation) else {
            return;
        };
        let Some(mut service) = slot.service.take() else { return };
        let mut cx = Cx::new(now, &mut self.shared, &mut self.scratch, &mut self.core, id);
        act(&mut *service, &mut cx);
        self.services[id.index].service = Some(service);
    }
}
