//! The tools that speak to a running daemon: `status`, `reload`, `log`.

use crate::admin::client::ask;
use crate::admin::request::Request;
use crate::config::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Prints a report of the daemon at `control`; with `watch`, again every second until it is interrupted.
///
/// # Errors
/// Why there is no report, in one line.
pub fn status(control: &Path, request: &Request, watch: bool, out: &mut dyn Write) -> Result<(), Error> {
    if !watch {
        return print(out, &ask(control, request).map_err(Error::world)?);
    }
    let for_programs = matches!(request, Request::Status { json: true, .. });
    loop {
        match ask(control, request) {
            Ok(report) if for_programs => print(out, &report)?,
            Ok(report) => print(out, &format!("{HOME}{report}"))?,
            // It may be restarting: that is what one watches.
            Err(why) => print(out, &format!("{HOME}{why}\n"))?,
        }
        pause();
    }
}

/// Has the daemon do something, and prints what it remarks on that.
///
/// # Errors
/// Why it did not, in one line.
pub fn command(control: &Path, request: &Request, out: &mut dyn Write) -> Result<(), Error> {
    print(out, &ask(control, request).map_err(Error::world)?)
}

/// Clears a terminal and puts its cursor into the first line (ECMA-48).
const HOME: &str = "\x1b[H\x1b[2J";

fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|e| Error::output(&e))
}

#[expect(clippy::disallowed_methods, reason = "a client process has no loop")]
fn pause() {
    std::thread::sleep(Duration::from_secs(1));
}
