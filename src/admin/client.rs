//! The asking side of the control socket: `beacond status`, `reload`, `log` and `trace`. Runs in a process of its own, so it
//! may block.

use super::request::Request;
use crate::config::Error;
use crate::reactor::bank::plain;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/beacond/control.sock";

/// How long a daemon may take to answer, and be late with the end of a trace.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest first line of an answer.
const FIRST_LINE: u64 = 4096;

/// Sends `request` to the daemon at `path`; returns what followed its `ok`.
///
/// # Errors
/// One line: nobody there, no answer, or the daemon's own `error`.
pub fn ask(path: &Path, request: &Request) -> Result<String, String> {
    let mut reply = Vec::new();
    follow(path, request, &mut |bytes| {
        reply.extend_from_slice(bytes);
        Ok(())
    })
    .map_err(|e| e.message)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// Sends `request` to the daemon at `path`, and hands on what follows its `ok` as it comes.
///
/// # Errors
/// As [`ask`], and what `each` says: then no more is read.
pub fn follow(
    path: &Path,
    request: &Request,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let fail = |e: io::Error| {
        let hint = match e.kind() {
            io::ErrorKind::NotFound => "; is beacond running, and with this --control PATH?",
            io::ErrorKind::ConnectionRefused => "; its beacond is gone",
            io::ErrorKind::PermissionDenied => "; ask as root or as the user that beacond runs as",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "; no answer in time",
            _ => "",
        };
        Error::world(format!("{}: {}{hint}", path.display(), plain(&e)))
    };
    let (mut reader, asked) = connect(path, request).map_err(fail)?;
    let mut first = Vec::new();
    match reader.by_ref().take(FIRST_LINE).read_until(b'\n', &mut first) {
        Err(e) if first.is_empty() => return Err(fail(e)),
        Ok(0) => asked.map_err(fail)?,
        _ => {}
    }
    if first != b"ok\n" {
        let line = String::from_utf8_lossy(&first);
        return Err(Error::world(match line.strip_suffix('\n') {
            Some(line) => line.strip_prefix("error ").unwrap_or("not an answer of beacond").to_owned(),
            None => format!("{}: closed without an answer", path.display()),
        }));
    }
    if let Request::Trace { time, .. } = request {
        reader.get_ref().set_read_timeout(Some(*time + PATIENCE)).map_err(fail)?;
    }
    loop {
        let bytes = match reader.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            come => come.map_err(fail)?,
        };
        if bytes.is_empty() {
            return Ok(());
        }
        each(bytes)?;
        let count = bytes.len();
        reader.consume(count);
    }
}

/// Asks. Who is turned away may find the connection closed while still asking, but can read what was said first; so
/// how the asking went is for later.
#[expect(clippy::disallowed_types, reason = "a client process has no loop")]
fn connect(
    path: &Path,
    request: &Request,
) -> io::Result<(BufReader<std::os::unix::net::UnixStream>, io::Result<()>)> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let asked = writeln!(stream, "{request}");
    Ok((BufReader::new(stream), asked))
}
