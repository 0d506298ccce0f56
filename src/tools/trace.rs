//! The tool that watches sessions of a running daemon: `trace`.

use crate::admin::client::follow;
use crate::admin::request::Request;
use crate::config::Error;
use std::io::Write;
use std::path::Path;

/// Prints what the daemon at `control` tells of the sessions that `request` asks for, as it comes, to the end.
///
/// # Errors
/// Why there is nothing more to print, in one line.
pub fn trace(control: &Path, request: &Request, out: &mut dyn Write) -> Result<(), Error> {
    follow(control, request, &mut |lines| {
        let written = out.write_all(lines).and_then(|()| out.flush());
        written.map_err(|e| Error::output(&e))
    })
}
