//! nginx told of a new file by a signal: the number in its process file, and whose that is. The files are read off the
//! loop, by the service.

use crate::reactor::bank::plain;
use crate::reactor::{Done, Reading};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The process number that was read.
pub fn number(read: Done, file: &str) -> Result<i32, String> {
    let bytes = match read {
        Done::Read(Ok(Reading::Bytes(bytes, _))) => bytes,
        Done::Read(Ok(Reading::Absent)) => return Err(format!("there is no {file}: nginx does not run")),
        Done::Read(Err(e)) => return Err(format!("cannot read {file}: {}", plain(&e))),
        _ => return Err(format!("cannot read {file}")),
    };
    let number = str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<i32>().ok());
    // 0 and below would be groups of processes, or all.
    number.filter(|pid| *pid > 1).ok_or_else(|| format!("{file} holds no process number"))
}

/// Sends HUP to process `pid`, which would end most others: a file that nginx left behind, when it was killed, may
/// name any. nginx and what came of it say in their title what they are.
pub fn hang_up(pid: i32, title: Done, file: &str) -> Result<(), String> {
    if let Done::Read(Ok(Reading::Bytes(title, _))) = title {
        let title = String::from_utf8_lossy(&title);
        if !["nginx", "master process"].iter().any(|word| title.contains(word)) {
            return Err(format!("{file} says {pid}, which is another process: nginx does not run"));
        }
    }
    kill(Pid::from_raw(pid), Signal::SIGHUP).map_err(|e| match e {
        Errno::ESRCH => format!("{file} says {pid}, which does not run"),
        e => format!("process {pid}: {}", e.desc()),
    })
}
