//! The loop: one thread, one poll, services that own their state and never block.
//!
//! A turn: poll until the earliest deadline; read the clocks once; hand out what became ready, the timers that are
//! due, the jobs that came back; let the member table expire; tell everybody once if members changed. This is the
//! only place with `mio::Poll` and the only one that reads clocks. It knows tokens, timers and services; it never
//! knows what a service is for.

pub mod bank;
mod clock;
mod crew;
mod cx;
pub mod log_pipe;
pub mod offload;
mod service;
mod signals;
pub mod udp;

pub use bank::{Socket, SocketSpec};
pub use clock::unix_us;
pub use cx::{Cx, Registration};
pub use log_pipe::LogPipe;
pub use offload::{Care, Done, Full, Job, Reading, Stamp};
pub use service::{Form, Key, PATIENCE, Plan, Planned, Planner, Ready, STREAM, Service};
pub use signals::Signal;

use crate::clock::{Mono, Now};
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
use std::io;
use std::time::Duration;

/// Names one running service; a later service in the same place has another generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    /// Some of these have messages to receive that may refresh members.
    hearing: bool,
    bank: Bank,
    offload: Offload,
    random: u64,
    unique: u64,
    stopping: bool,
    reload_for: Vec<(ServiceId, Key)>,
    reload: bool,
    gather_for: Vec<(ServiceId, Key, Form)>,
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
    /// Until when whoever was silent has been listened for.
    listened: Mono,
}

const SIGNALS: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
const STDERR: Token = Token(usize::MAX - 3);

/// Bytes of scratch: what one read of a bulk stream is worth, and more than a batch of datagrams takes.
pub const SCRATCH: usize = 256 << 10;

/// How many busy turns may hold back expiry: what lies in a socket may yet refresh a member.
const BUSY_TURNS: u32 = 64;

/// How many events one poll brings.
const EVENTS: usize = 256;

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
            hearing: false,
            bank: Bank::default(),
            offload,
            random: seeds[2],
            unique: 0,
            stopping: false,
            reload_for: Vec::new(),
            reload: false,
            gather_for: Vec::new(),
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
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            planner,
            stop_by: None,
            busy: 0,
            listened: Mono::ZERO,
        })
    }

    /// Opens the sockets of `plan`; nothing runs yet, so privileges can be dropped between this and
    /// [`Reactor::start`].
    ///
    /// # Errors
    /// One line: where it was asked for, which socket, why, what to do.
    pub fn open(&mut self, plan: &Plan) -> Result<(), String> {
        let wanted: Vec<SocketSpec> = plan.services.iter().flat_map(|p| p.service.sockets()).collect();
        self.core.bank.open_missing(&wanted).map_err(|(spec, why)| {
            let place = plan.places.iter().find(|(at, _)| at == spec);
            place.map_or(String::new(), |(_, place)| format!("{place}: ")) + &why
        })
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
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.log.watch(&self.core.registry, STDERR);
            let begin = self.clock.mono();
            let timeout = self.timeout(begin);
            if let Err(e) = self.poll.poll(&mut events, timeout) {
                if e.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(e);
            }
            // What came later may lie in a socket: the process may have been stopped since, for as long as a timeout.
            let came = events.iter().count();
            self.listened = if came == 0 { begin.after(timeout.unwrap_or_default()) } else { begin };
            self.core.hearing |= came >= EVENTS;
            if self.turn(&events) {
                self.finish();
                return Ok(());
            }
        }
    }

    /// One turn after a poll; `true` when the program is to end.
    fn turn(&mut self, events: &Events) -> bool {
        let now = self.clock.read();
        self.shared.taps.tick(now.mono);
        for event in events {
            self.event(event, now);
        }
        // Once for each, however often it was asked for: else who has an event in every turn and never finishes would
        // get one call more with each.
        let mut again = std::mem::take(&mut self.core.again);
        crate::sorted::sort(&mut again, Ord::cmp);
        again.dedup();
        for (id, key) in again {
            let ready = Ready { readable: true, writable: true, ..Ready::default() };
            self.call(id, now, |s, cx| s.ready(key, ready, cx));
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
        self.gather(now);
        if std::mem::take(&mut self.core.reload) && !self.core.stopping {
            self.reload(now);
        }
        if self.core.stopping && self.stop_by.is_none() {
            let services = self.services.iter().filter_map(|(_, slot)| slot.service.as_ref());
            let patience = services.map(|s| s.patience()).max().unwrap_or_default();
            self.stop_by = Some(now.mono.after(patience));
        }
        let idle = self.drain(now);
        if self.shared.taps.take_news() {
            for id in self.running() {
                self.call(id, now, |s, cx| s.taps_filled(cx));
            }
        }
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
                    ended: event.is_read_closed(),
                    failed: event.is_error(),
                    urgent: event.is_priority() || !cfg!(any(target_os = "linux", target_os = "android")),
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

    /// Lets the table expire up to when it was listened for, unless datagrams that may refresh a member still lie in a
    /// socket.
    fn expire(&mut self, now: Now) {
        let hearing = std::mem::take(&mut self.core.hearing);
        self.busy = if hearing { self.busy.saturating_add(1) } else { 0 };
        if self.busy == 0 {
            self.shared.expire(self.listened);
        } else if self.busy > BUSY_TURNS {
            self.shared.expire(now.mono);
        }
    }

    /// Until the earliest deadline; `None`: until something happens.
    fn timeout(&mut self, now: Mono) -> Option<Duration> {
        if !self.core.again.is_empty() || self.core.reload || !self.core.gather_for.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self.core.wheel.next().map(|ms| Mono(ms.saturating_mul(TICK)));
        let deadline =
            [timer, self.shared.members.next_deadline(), self.stop_by].into_iter().flatten().min()?;
        Some(deadline.since(now))
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
