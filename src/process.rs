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
use mio::unix::pipe::{Receiver, Sender};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio};
use std::{fmt, mem};

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
    process: std::process::Child,
    keys: Keys,
    input: Option<Pipe<Sender>>,
    unwritten: Vec<u8>,
    errors: Option<Pipe<Receiver>>,
    lines: Lines,
    ended: bool,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit(ExitStatus);

impl Exit {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn success(self) -> bool {
        self.0.success()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = self.0.signal();
        match (self.0.code(), signal.map(Signal::try_from)) {
            (Some(code), _) => write!(f, "exit status {code}"),
            (None, Some(Ok(signal))) => write!(f, "killed by {signal}"),
            _ => write!(f, "killed by signal {}", signal.unwrap_or_default()),
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
        let (program, arguments) = command.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let input = if command.input.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut builder = std::process::Command::new(program);
        builder.args(arguments).envs(command.env.iter().copied()).process_group(0);
        builder.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped());
        for ours in OURS_ALONE {
            builder.env_remove(ours);
        }
        let mut process = builder.spawn()?;
        let input = process.stdin.take().map(Sender::from);
        let errors = process.stderr.take().map(Receiver::from);
        let (unwritten, lines) = (command.input, Lines::default());
        // From here on an error drops the child, which kills it.
        let mut child = Child { process, keys, input: None, unwritten, errors: None, lines, ended: false };
        if let Some(end) = input {
            end.set_nonblocking(true)?;
            child.input = Some(Pipe::watch(end, keys.input, Interest::WRITABLE, cx)?);
        }
        if let Some(end) = errors {
            end.set_nonblocking(true)?;
            child.errors = Some(Pipe::watch(end, keys.errors, Interest::READABLE, cx)?);
        }
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
        // Waiting for a child that somebody else has waited for is the only way to fail.
        let status = self.process.try_wait().unwrap_or(Some(ExitStatus::from_raw(0xff00)))?;
        self.ended = true;
        self.read_errors(cx, line);
        self.lines.finish(line);
        self.unwatch(cx);
        (self.input, self.errors) = (None, None);
        Some(Exit(status))
    }

    /// Kills it and all of its group; that it has ended is told as ever.
    pub fn kill(&mut self) {
        // Until it has been waited for, neither its number nor its group's can belong to anybody else.
        if let (false, Ok(group)) = (self.ended, i32::try_from(self.process.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            // It may have moved to another group, and its end is what its owner waits for.
            let _ = self.process.kill();
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
            let _ = self.process.try_wait();
        }
    }
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
        assert_eq!(Exit(ExitStatus::from_raw(0)).to_string(), "exit status 0");
        assert!(Exit(ExitStatus::from_raw(0)).success() && !Exit(ExitStatus::from_raw(9)).success());
        assert_eq!(Exit(ExitStatus::from_raw(3 << 8)).to_string(), "exit status 3");
        assert_eq!(Exit(ExitStatus::from_raw(9)).to_string(), "killed by SIGKILL");
        assert_eq!(Exit(ExitStatus::from_raw(40)).to_string(), "killed by signal 40");
    }
}
