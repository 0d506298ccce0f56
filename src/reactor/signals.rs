//! Signals as a source of the poll loop: a handler only writes to a pipe that the loop reads.

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals as Pipe;
use std::io;

/// What the loop does about a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// TERM or INT: drain and leave; a second one leaves at once.
    Stop,
    /// HUP: read the configuration again.
    Reload,
    /// CHLD: some child of ours ended.
    Child,
}

/// The process's signals.
pub struct Signals {
    pipe: Pipe,
}

impl Signals {
    /// Installs the handlers and registers the pipe with `registry` under `token`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Signals> {
        let mut pipe = Pipe::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
        registry.register(&mut pipe, token, mio::Interest::READABLE)?;
        Ok(Signals { pipe })
    }

    /// The signals that came since the last call.
    pub fn pending(&mut self) -> impl Iterator<Item = Signal> + use<'_> {
        self.pipe.pending().map(|number| match number {
            SIGHUP => Signal::Reload,
            SIGCHLD => Signal::Child,
            _ => Signal::Stop,
        })
    }
}
