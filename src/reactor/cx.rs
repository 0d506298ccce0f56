//! What the loop lends to a service for the length of one call.

use super::{Core, Form, Full, Job, Key, ServiceId, Socket, SocketSpec, TICK};
use crate::clock::{Mono, Now};
use crate::members::Writer;
use crate::shared::Shared;
use crate::wheel::TimerId;
use mio::{Interest, Token, event};
use std::io;

/// Who registered a source, and as what.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) service: ServiceId,
    pub(super) key: Key,
}

/// A source under watch; needed to change or end that.
#[derive(Debug)]
pub struct Registration(usize);

/// The loop at a service's hand.
pub struct Cx<'a> {
    /// The clocks, as read at the start of this turn.
    pub now: Now,
    /// What rooms share: members, views, counters.
    pub shared: &'a mut Shared,
    /// Bytes to receive into, [`super::SCRATCH`] of them; worth nothing after the call.
    pub scratch: &'a mut [u8],
    core: &'a mut Core,
    me: ServiceId,
}

impl<'a> Cx<'a> {
    pub(super) fn new(
        now: Now,
        shared: &'a mut Shared,
        scratch: &'a mut [u8],
        core: &'a mut Core,
        me: ServiceId,
    ) -> Cx<'a> {
        Cx { now, shared, scratch, core, me }
    }

    /// Takes a socket that [`super::Service::sockets`] asked for.
    ///
    /// # Errors
    /// `NotFound` when it did not.
    pub fn take_socket(&mut self, spec: &SocketSpec) -> io::Result<Socket> {
        self.core.bank.take(spec)
    }

    /// Puts a socket back into the bank; deregister it first.
    pub fn give_back(&mut self, spec: &SocketSpec, socket: Socket) {
        self.core.bank.give_back(spec, socket);
    }

    /// Watches `source`; [`super::Service::ready`] gets `key`.
    ///
    /// # Errors
    /// What the system says.
    pub fn register(
        &mut self,
        source: &mut dyn event::Source,
        key: Key,
        interest: Interest,
    ) -> io::Result<Registration> {
        let entry = self.core.sources.vacant_entry();
        let token = entry.key();
        source.register(&self.core.registry, Token(token), interest)?;
        entry.insert(Some(Source { service: self.me, key }));
        Ok(Registration(token))
    }

    /// Watches for something else.
    ///
    /// # Errors
    /// What the system says.
    pub fn reregister(
        &mut self,
        source: &mut dyn event::Source,
        registration: &Registration,
        interest: Interest,
    ) -> io::Result<()> {
        source.reregister(&self.core.registry, Token(registration.0), interest)
    }

    /// Watches no longer. Events of this turn that are still to come do not reach anybody.
    pub fn deregister(&mut self, source: &mut dyn event::Source, registration: Registration) {
        // It fails only for a source that the kernel has dropped already.
        let _ = source.deregister(&self.core.registry);
        self.forget(registration);
    }

    /// Watches no longer a source that its owner is about to close: the kernel forgets it by itself then.
    pub fn forget(&mut self, registration: Registration) {
        self.core.sources[registration.0] = None;
        self.core.freed.push(registration.0);
    }

    /// Calls [`super::Service::timer`] with `key` at `at`, never earlier, within the turn after the next whole
    /// millisecond.
    pub fn arm(&mut self, key: Key, at: Mono) -> TimerId {
        self.core.wheel.arm(at.0.div_ceil(TICK), (self.me, key))
    }

    /// Arms the one timer that a service has for `key` anew, in place of the one it had; at [`Mono::NEVER`] there is none.
    pub fn rearm(&mut self, timer: &mut Option<TimerId>, key: Key, at: Mono) {
        if let Some(old) = timer.take() {
            self.cancel(old);
        }
        if at != Mono::NEVER {
            *timer = Some(self.arm(key, at));
        }
    }

    /// What this service is to the members that it brings: another than every service before it was.
    #[must_use]
    pub fn writer(&self) -> Writer {
        Writer::new(self.me.generation)
    }

    /// Forgets a timer; one that has fired is none.
    pub fn cancel(&mut self, timer: TimerId) {
        self.core.wheel.cancel(timer);
    }

    /// As [`Cx::again`], for a socket in which messages wait that may refresh members: they hold back expiry.
    pub fn again_hearing(&mut self, key: Key) {
        self.core.hearing = true;
        self.again(key);
    }

    /// Calls [`super::Service::ready`] again after everybody else had their turn.
    pub fn again(&mut self, key: Key) {
        self.core.again.push((self.me, key));
    }

    /// Has a job done off the loop; [`super::Service::done`] gets what came of it.
    ///
    /// # Errors
    /// [`Full`]: try again later.
    pub fn offload(&mut self, key: Key, job: Job) -> Result<(), Full> {
        self.core.offload.submit(self.me, key, job)
    }

    /// A number that nobody in this process was given before, from 1.
    pub fn unique(&mut self) -> u64 {
        self.core.unique += 1;
        self.core.unique
    }

    /// A random number, for jitter and choices (SplitMix64); never for secrets.
    pub fn random(&mut self) -> u64 {
        self.core.random = self.core.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.core.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Reads the configuration again after this turn; [`super::Service::done`] hears how it went.
    pub fn reload(&mut self, key: Key) {
        self.core.reload = true;
        self.core.reload_for.push((self.me, key));
    }

    /// Asks every service for its sessions after this turn; [`super::Service::done`] gets what they say.
    pub fn gather(&mut self, key: Key, form: Form) {
        self.core.gather_for.push((self.me, key, form));
    }

    /// Ends the program as TERM does.
    pub fn shut_down(&mut self) {
        self.core.stopping = true;
    }
}
