//! Log lines to standard error without ever blocking the loop.
//!
//! A line is written at once while standard error takes it. A reader that stalls (a stopped terminal, a stuck
//! supervisor) makes lines wait in a bounded ring that the loop empties when there is room; what overflows is counted
//! and said. Lines are made by the `log` macros; this file only moves bytes.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of lines that may wait.
const RING: usize = 64 << 10;

/// A pipe that reports room takes at least this much without blocking (PIPE_BUF on every system we run on is more
/// than we ever write at once).
const CHUNK: usize = 512;

/// The two ends: the logger writes, the loop drains. Clones share the ring.
#[derive(Clone, Debug, Default)]
pub struct LogPipe {
    ring: Arc<Mutex<Ring>>,
}

#[derive(Debug, Default)]
struct Ring {
    bytes: VecDeque<u8>,
    lost: u64,
    registered: bool,
}

impl LogPipe {
    /// Asks for an event under `token` when lines wait and standard error is not being watched yet.
    pub(super) fn watch(&self, registry: &Registry, token: Token) {
        let mut ring = self.lock();
        if !ring.bytes.is_empty() && !ring.registered {
            let fd = io::stderr().as_raw_fd();
            ring.registered = registry.register(&mut SourceFd(&fd), token, Interest::WRITABLE).is_ok();
        }
    }

    /// Writes what waits, as far as standard error takes it; stops watching when all is out.
    pub(super) fn drain(&self, registry: &Registry) {
        let mut ring = self.lock();
        ring.drain();
        if ring.bytes.is_empty() && ring.registered {
            let fd = io::stderr().as_raw_fd();
            let _ = registry.deregister(&mut SourceFd(&fd));
            ring.registered = false;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call is one whole line, as `env_logger` writes them.
impl Write for LogPipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut ring = self.lock();
        if ring.bytes.len() + line.len() > RING {
            ring.lost += 1;
        } else {
            ring.bytes.extend(line);
        }
        ring.drain();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ring {
    fn drain(&mut self) {
        while !self.bytes.is_empty() && has_room() {
            let (front, _) = self.bytes.as_slices();
            let chunk = &front[..front.len().min(CHUNK)];
            match io::stderr().write(chunk) {
                Ok(written) => drop(self.bytes.drain(..written)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Nobody reads any more (EPIPE, EIO): there is no one left to tell.
                Err(_) => self.bytes.clear(),
            }
            if self.bytes.is_empty() && self.lost > 0 {
                let lost = std::mem::take(&mut self.lost);
                self.bytes.extend(format!("{lost} log lines lost: standard error was not read\n").bytes());
            }
        }
    }
}

fn has_room() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
