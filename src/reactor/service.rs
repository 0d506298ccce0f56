//! What a service owes the loop, and what a configuration comes to: the vocabulary of the reactor.

use super::{Cx, Done, SocketSpec};
use crate::clock::Now;
use crate::members::Policy;
use crate::shared::Shared;
use mio::Interest;
use std::any::Any;
use std::io;
use std::time::Duration;

/// A service's own number for a source, a timer or a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub usize);

/// Why a source is ready. With [`Cx::again`] the first two are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// Reading makes progress, or says why it cannot.
    pub readable: bool,
    /// Writing makes progress, or says why it cannot.
    pub writable: bool,
    /// The peer has ended its stream: behind what can be read comes the end, and no further event for it.
    pub ended: bool,
    /// The connection failed: it was reset, or refused. The socket's error says which.
    pub failed: bool,
    /// Urgent data is on its way or was; also where the system does not tell. Reads stop at its mark, and `splice` never
    /// passes it.
    pub urgent: bool,
}

/// What a connection is watched for whose bytes are somebody else's: urgent data too, where the system tells of it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub const STREAM: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
/// What a connection is watched for whose bytes are somebody else's.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub const STREAM: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// For whom a report is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// People.
    Text,
    /// Programs.
    Json,
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

    /// Taps have something to hand out that they had not before; at most once a turn.
    fn taps_filled(&mut self, _cx: &mut Cx<'_>) {}

    /// Somebody asks for the sessions it carries: appends one JSON object or a few lines of text, of limited length;
    /// nothing if it never carries any.
    fn sessions(&self, _form: Form, _now: Now, _shared: &Shared, _out: &mut String) {}

    /// A child of the process ended: poll your own.
    fn child_exited(&mut self, _cx: &mut Cx<'_>) {}

    /// At a reload, before `start`: takes over what it wants from its predecessor of the same name.
    fn inherit(&mut self, _old: Box<dyn Any>) {}

    /// At a reload, asked of the running service before any replacement: takes over what `new`, of the same name, was
    /// configured to be, without a pause, and so keeps its sources and timers. Sockets that `new` asks for and this one
    /// has not lie in the bank by now. `Some` gives it back: then this one is stopped, and `new` inherits.
    fn reload(&mut self, new: Box<dyn Service>, _cx: &mut Cx<'_>) -> Option<Box<dyn Service>> {
        Some(new)
    }

    /// Puts bank sockets back, deregisters everything. Timers and jobs under way are forgotten by the loop.
    fn stop(&mut self, cx: &mut Cx<'_>);

    /// The program ends, or a reload removed this service: finish what must be finished. Asked after every turn
    /// until it says `true`; then `stop` follows.
    fn drain(&mut self, _cx: &mut Cx<'_>) -> bool {
        true
    }

    /// How long [`Service::drain`] may take before the program ends all the same.
    fn patience(&self) -> Duration {
        PATIENCE
    }
}

/// How long a service that has no reason to want more may take to drain.
pub const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Where the configuration asks for a socket, for who must hear that it cannot be opened.
    pub places: Vec<(SocketSpec, String)>,
}

/// Makes a [`Plan`] anew for a reload; reads files, opens nothing. `Err` is one line for the user.
pub type Planner = Box<dyn FnMut() -> Result<Plan, String>>;
