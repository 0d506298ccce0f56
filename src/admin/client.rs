//! The asking side of the control socket: `beacond status`, `reload` and `log`. Runs in a process of its own, so it
//! may block.

use super::request::Request;
use crate::reactor::bank::plain;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/beacond/control.sock";

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `request` to the daemon at `path`; returns what followed its `ok`.
///
/// # Errors
/// One line: nobody there, no answer, or the daemon's own `error`.
pub fn ask(path: &Path, request: &Request) -> Result<String, String> {
    let reply = exchange(path, request).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::NotFound => "; is beacond running, and with this --control PATH?",
            io::ErrorKind::ConnectionRefused => "; its beacond is gone",
            io::ErrorKind::PermissionDenied => "; ask as root or as the user that beacond runs as",
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "; no answer in 10 s",
            _ => "",
        };
        format!("{}: {}{hint}", path.display(), plain(&e))
    })?;
    match reply.split_once('\n') {
        Some(("ok", rest)) => Ok(rest.to_owned()),
        Some((first, _)) => {
            Err(first.strip_prefix("error ").unwrap_or("not an answer of beacond").to_owned())
        }
        None => Err(format!("{}: closed without an answer", path.display())),
    }
}

#[expect(clippy::disallowed_types, reason = "a client process has no loop")]
fn exchange(path: &Path, request: &Request) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Who is turned away may find the connection closed while still asking; what was said first can be read.
    let asked = writeln!(stream, "{request}");
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset && !reply.is_empty() => {}
        Err(e) => return Err(e),
        Ok(_) if reply.is_empty() => asked?,
        Ok(_) => {}
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
