//! Commands of the operator's as child processes: no shell, a process group of their own, nothing that blocks.
//!
//! A child gets bytes on its standard input, as fast as it takes them; what it writes to standard error comes back as
//! lines, bounded in length and number; standard output goes nowhere. Its owner forwards `ready` and `child_exited`,
//! and kills the group when the time is up. An end is noticed by SIGCHLD alone, never by asking now and then.
//!
//! When the command itself has ended its run is over: what it left behind in its group is left alone, and finds
//! standard error closed.

use crate::bytes::Printable;
use crate::reactor::{Cx, Key, Registration};
use mio::Interest;
use mio::event::Source;
use mio::unix::pipe::{self, Receiver, Sender};
use nix::errno::Errno;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::{CString, NulError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::{env, fmt, mem};

/// What to run.
#[derive(Clone, Debug)]
pub struct Command<'a> {
    /// The program, looked up in `PATH` unless it has a slash, and its arguments.
    pub argv: &'a [String],
    /// Variables added to this process's environment.
    pub env: &'a [(&'a str, &'a str)],
    /// What to write to its standard input; then that is closed.
    pub input: Vec<u8>,
}

/// The owner's keys for the two pipes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys {
    /// Standard input.
    pub input: Key,
    /// Standard error.
    pub errors: Key,
}

/// A command that runs. Dropped before its end was seen, its group is killed.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    keys: Keys,
    input: Option<Pipe<Sender>>,
    unwritten: Vec<u8>,
    errors: Option<Pipe<Receiver>>,
    lines: Lines,
    ended: bool,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By itself, with this status; 0 is success.
    Status(i32),
    /// By a signal; `None` is one without a name, as those are that programs may use as they like.
    Killed(Option<Signal>),
}

impl Exit {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Exit::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Status(code) => write!(f, "exit status {code}"),
            Exit::Killed(Some(signal)) => write!(f, "killed by {signal}"),
            Exit::Killed(None) => f.write_str("killed by a real-time signal"),
        }
    }
}

#[derive(Debug)]
struct Pipe<T> {
    end: T,
    registration: Option<Registration>,
}

impl<T: Source> Pipe<T> {
    fn watch(mut end: T, key: Key, interest: Interest, cx: &mut Cx<'_>) -> io::Result<Pipe<T>> {
        let registration = Some(cx.register(&mut end, key, interest)?);
        Ok(Pipe { end, registration })
    }

    fn unwatch(&mut self, cx: &mut Cx<'_>) {
        if let Some(registration) = self.registration.take() {
            cx.deregister(&mut self.end, registration);
        }
    }
}

impl Child {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the system says: no such program, not executable, no process or descriptor to be had.
    pub fn spawn(command: Command<'_>, keys: Keys, cx: &mut Cx<'_>) -> io::Result<Child> {
        let words = command.argv.iter().map(|word| CString::new(word.as_str()));
        let argv = words.collect::<Result<Vec<_>, _>>()?;
        let program = argv.first().ok_or(io::ErrorKind::InvalidInput)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let (their_errors, errors) = pipe::new()?;
        their_errors.set_nonblocking(false)?;
        let input = if command.input.is_empty() { None } else { Some(pipe::new()?) };
        if let Some((_, theirs)) = &input {
            theirs.set_nonblocking(false)?;
        }
        let their_input = input.as_ref().map_or(null.as_raw_fd(), |(_, theirs)| theirs.as_raw_fd());
        let mut files = PosixSpawnFileActions::init()?;
        files.add_dup2(their_input, 0)?;
        files.add_dup2(null.as_raw_fd(), 1)?;
        files.add_dup2(their_errors.as_raw_fd(), 2)?;
        let pid = posix_spawnp(program, &files, &attributes()?, &argv, &environment(command.env)?)?;
        let (unwritten, lines) = (command.input, Lines::default());
        // From here on an error drops the child, which kills it.
        let mut child = Child { pid, keys, input: None, unwritten, errors: None, lines, ended: false };
        if let Some((end, _)) = input {
            child.input = Some(Pipe::watch(end, keys.input, Interest::WRITABLE, cx)?);
        }
        child.errors = Some(Pipe::watch(errors, keys.errors, Interest::READABLE, cx)?);
        Ok(child)
    }

    /// One of its keys is ready: moves bytes; `line` gets each whole line of standard error.
    pub fn ready(&mut self, key: Key, cx: &mut Cx<'_>, line: &mut dyn FnMut(&str)) {
        if key == self.keys.input {
            self.write_input(cx);
        } else if key == self.keys.errors && self.read_errors(cx, line) {
            cx.again(key);
        }
    }

    /// A child of this process has ended: says how, if it was this one. Its last lines go to `line`.
    pub fn exited(&mut self, cx: &mut Cx<'_>, line: &mut dyn FnMut(&str)) -> Option<Exit> {
        let exit = match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => Exit::Status(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit::Killed(Some(signal)),
            Ok(_) => return None,
            Err(Errno::EINVAL) => Exit::Killed(None),
            // Somebody else has waited for it.
            Err(_) => Exit::Status(255),
        };
        self.ended = true;
        self.read_errors(cx, line);
        self.lines.finish(line);
        self.unwatch(cx);
        (self.input, self.errors) = (None, None);
        Some(exit)
    }

    /// Kills it and all of its group; that it has ended is told as ever.
    pub fn kill(&mut self) {
        // Until it has been waited for, neither its number nor its group's can belong to anybody else.
        if !self.ended {
            let _ = killpg(self.pid, Signal::SIGKILL);
            // It may have moved to another group, and its end is what its owner waits for.
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Stops watching its pipes; it goes on, and can be watched again.
    pub fn unwatch(&mut self, cx: &mut Cx<'_>) {
        if let Some(pipe) = &mut self.input {
            pipe.unwatch(cx);
        }
        if let Some(pipe) = &mut self.errors {
            pipe.unwatch(cx);
        }
    }

    /// Watches its pipes again, now for the service of `cx` and under its `keys`.
    ///
    /// # Errors
    /// What the system says.
    pub fn watch(&mut self, keys: Keys, cx: &mut Cx<'_>) -> io::Result<()> {
        self.keys = keys;
        if let Some(Pipe { end, .. }) = self.input.take() {
            self.input = Some(Pipe::watch(end, keys.input, Interest::WRITABLE, cx)?);
        }
        if let Some(Pipe { end, .. }) = self.errors.take() {
            self.errors = Some(Pipe::watch(end, keys.errors, Interest::READABLE, cx)?);
        }
        Ok(())
    }

    fn write_input(&mut self, cx: &mut Cx<'_>) {
        let Some(pipe) = &mut self.input else { return };
        let mut written = 0;
        let open = loop {
            let rest = self.unwritten.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break false;
            }
            match pipe.end.write(rest) {
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e.kind() == io::ErrorKind::WouldBlock,
            }
        };
        self.unwritten.drain(..written);
        if !open {
            // All written, or a command that reads no more: its exit status decides whether that was right.
            pipe.unwatch(cx);
            self.input = None;
            self.unwritten = Vec::new();
        }
    }

    /// Reads standard error for a while; `true` if there may be more.
    fn read_errors(&mut self, cx: &mut Cx<'_>, line: &mut dyn FnMut(&str)) -> bool {
        let Some(pipe) = &mut self.errors else { return false };
        for _ in 0..READS {
            match pipe.end.read(cx.scratch) {
                Ok(n @ 1..) => self.lines.feed(cx.scratch.get(..n).unwrap_or_default(), line),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Ok(0) | Err(_) => {
                    pipe.unwatch(cx);
                    self.errors = None;
                    return false;
                }
            }
        }
        true
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            // Most often it is gone already. If not, the end of this process sees to it.
            let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// A process group of its own, and signals as every program expects to find them.
fn attributes() -> io::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigdefault(&SigSet::from(Signal::SIGPIPE))?;
    attributes.set_sigmask(&SigSet::empty())?;
    Ok(attributes)
}

/// This process's environment without what is ours alone, and `added`.
fn environment(added: &[(&str, &str)]) -> Result<Vec<CString>, NulError> {
    let replaced = |name: &[u8]| {
        OURS_ALONE.iter().chain(added.iter().map(|(name, _)| name)).any(|other| other.as_bytes() == name)
    };
    let ours = env::vars_os().filter(|(name, _)| !replaced(name.as_bytes()));
    let ours = ours.map(|(name, value)| CString::new([name.as_bytes(), value.as_bytes()].join(&b'=')));
    let added = added.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
    ours.chain(added).collect()
}

/// Cuts bytes into lines, of which it lets a bounded number through, each of bounded length.
#[derive(Debug, Default)]
struct Lines {
    current: Vec<u8>,
    shown: usize,
    withheld: u64,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        for piece in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, whole) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
            let room = MAX_LINE.saturating_sub(self.current.len());
            self.current.extend_from_slice(text.get(..room).unwrap_or(text));
            if whole {
                self.emit(line);
            }
        }
    }

    /// The end: a last line without its newline, and how many lines there were that nobody saw.
    fn finish(&mut self, line: &mut dyn FnMut(&str)) {
        self.emit(line);
        if mem::take(&mut self.withheld) > 0 {
            line("(more lines not shown)");
        }
    }

    fn emit(&mut self, line: &mut dyn FnMut(&str)) {
        let text = self.current.trim_ascii_end();
        if !text.is_empty() && self.shown < MAX_LINES {
            self.shown += 1;
            line(&Printable(text).to_string());
        } else if !text.is_empty() {
            self.withheld += 1;
        }
        self.current.clear();
    }
}

/// What a supervisor or a predecessor meant for this very process.
const OURS_ALONE: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Reads of standard error in one turn.
const READS: usize = 4;
/// Bytes of a line that are shown.
const MAX_LINE: usize = 512;
/// Lines of one run that are shown.
const MAX_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece, &mut |line| seen.push(line.to_owned()));
        }
        lines.finish(&mut |line| seen.push(line.to_owned()));
        seen
    }

    #[test]
    fn lines_however_they_arrive() {
        assert_eq!(
            lines(&[b"one\r\ntw", b"o\n", b"\n\x1b[31mred", b"", b"!"]),
            ["one", "two", "%1B[31mred!"]
        );
        assert!(lines(&[]).is_empty());
    }

    #[test]
    fn lines_are_bounded() {
        let long = lines(&[&[b'x'; 1000], &[b'x'; 1000], b"\nshort"]);
        assert_eq!(long, ["x".repeat(MAX_LINE), "short".to_owned()]);
        let many = lines(&[b"a\n".repeat(MAX_LINES + 5).as_slice()]);
        assert_eq!((many.len(), many.last().unwrap().as_str()), (MAX_LINES + 1, "(more lines not shown)"));
    }

    #[test]
    fn ends_in_words() {
        let killed = Exit::Killed(Some(Signal::SIGKILL));
        assert!(Exit::Status(0).success() && !Exit::Status(9).success() && !killed.success());
        assert_eq!(Exit::Status(3).to_string(), "exit status 3");
        assert_eq!(killed.to_string(), "killed by SIGKILL");
        assert_eq!(Exit::Killed(None).to_string(), "killed by a real-time signal");
    }
}
