//! The real binary, run as a user would.

use super::{PATIENCE, SECRET};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A running `beacond` and the log lines it has written so far. Killed with the value.
pub struct Daemon {
    child: Child,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    pub control: PathBuf,
}

/// Lower-case command line: `args("--log-level debug listen --listen 127.0.0.1:0")`.
pub fn args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// The binary under test: this build's, or the one that BEACOND_BINARY names, as an installed package's.
fn binary() -> Command {
    Command::new(program())
}

/// Its path.
pub fn program() -> std::ffi::OsString {
    std::env::var_os("BEACOND_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_beacond").into())
}

/// Runs `beacond` to its end.
pub fn run(line: &str) -> Output {
    run_args(&args(line))
}

/// Runs `beacond` to its end, with words that may hold blanks.
pub fn run_args(words: &[String]) -> Output {
    binary().args(words).stdin(Stdio::null()).output().unwrap()
}

/// Writes a secret file of mode 0600 and returns its path.
pub fn secret_file(dir: &Path) -> String {
    private_file(dir, "secret", &format!("{SECRET}\n"))
}

/// Writes a file of mode 0600 and returns its path. A daemon that reads meanwhile sees the old text or the new.
pub fn private_file(dir: &Path, name: &str, text: &str) -> String {
    use std::io::Write;
    let path = dir.join(name);
    let mut file = tempfile::NamedTempFile::new_in(dir).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.persist(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn own_control(dir: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    dir.join(format!("control{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}

impl Daemon {
    /// Starts it with a control socket in `dir`, at debug level.
    pub fn start(dir: &Path, line: &str) -> Daemon {
        Daemon::start_args(dir, &args(line))
    }

    /// Same, at another log level.
    pub fn start_with(level: &str, dir: &Path, line: &str) -> Daemon {
        Daemon::spawn(level, &own_control(dir), &args(line))
    }

    /// Same, with words that may hold blanks.
    pub fn start_args(dir: &Path, words: &[String]) -> Daemon {
        Daemon::spawn("debug", &own_control(dir), words)
    }

    /// Starts it with this control socket.
    pub fn spawn(level: &str, control: &Path, words: &[String]) -> Daemon {
        Daemon::run(binary(), level, control, words)
    }

    /// Starts it with so many file descriptors at most.
    pub fn spawn_limited(files: u32, control: &Path, words: &[String]) -> Daemon {
        let mut shell = Command::new("/bin/sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        shell.arg("-c").arg(&script).arg(program());
        Daemon::run(shell, "debug", control, words)
    }

    /// Starts it where `folder` is a small file system of its own, of so many kilobytes; [`Daemon::inside`] leads there.
    pub fn spawn_on_a_small_disk(kilobytes: u32, folder: &Path, control: &Path, words: &[String]) -> Daemon {
        let mut unshare = Command::new("unshare");
        let script =
            format!("mount -t tmpfs -o size={kilobytes}k none '{}' && exec \"$0\" \"$@\"", folder.display());
        unshare.args(["-r", "-m", "sh", "-c", &script]).arg(program());
        Daemon::run(unshare, "debug", control, words)
    }

    /// A path as the daemon sees it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), path.display()))
    }

    /// Runs a command where the daemon's file systems are.
    pub fn run_inside(&self, line: &str) {
        let pid = self.pid().to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &pid, "-U", "-m", "--preserve-credentials"]).args(args(line));
        assert!(nsenter.status().unwrap().success(), "{line}");
    }

    fn run(mut command: Command, level: &str, control: &Path, words: &[String]) -> Daemon {
        let mut child = command
            .args(["--log-level", level, "--control", control.to_str().unwrap()])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.0.lock().unwrap().push(line);
                writer.1.notify_all();
            }
        });
        Daemon { child, log, control: control.to_owned() }
    }

    /// Waits for a log line with `fragment`, whenever it was written; returns it.
    #[track_caller]
    pub fn line(&self, fragment: &str) -> String {
        self.line_after(0, fragment).1
    }

    /// Waits for a line with `fragment` at or after line number `from`; returns the number behind it, and it.
    #[track_caller]
    pub fn line_after(&self, from: usize, fragment: &str) -> (usize, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut log = self.log.0.lock().unwrap();
        loop {
            if let Some(at) = log.iter().skip(from).position(|l| l.contains(fragment)) {
                return (from + at + 1, log[from + at].clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no log line with {fragment:?}; the log:\n{}", log.join("\n"));
            log = self.log.1.wait_timeout(log, left).unwrap().0;
        }
    }

    /// The lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.0.lock().unwrap().clone()
    }

    /// The number of lines so far: where to start waiting for the next.
    pub fn mark(&self) -> usize {
        self.log.0.lock().unwrap().len()
    }

    /// The address after `listening for beacons on`.
    #[track_caller]
    pub fn listening(&self) -> SocketAddr {
        let line = self.line("listening for beacons on ");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// The report of `beacond status --json`; null when it does not answer.
    pub fn status(&self) -> Value {
        let out = run(&format!("status --json --control {}", self.control.display()));
        serde_json::from_slice(&out.stdout).unwrap_or(Value::Null)
    }

    /// A member's row of the status report.
    pub fn member(&self, balancer: &str, url: &str) -> Value {
        let status = self.status();
        let members = status["balancers"][balancer]["members"].as_array().cloned().unwrap_or_default();
        members.into_iter().find(|m| m["url"] == url).unwrap_or(Value::Null)
    }

    /// A counter of the status report.
    pub fn counter(&self, name: &str) -> u64 {
        self.status()["counters"][name].as_u64().unwrap_or(0)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name: `TERM`, `HUP`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, format!("SIG{name}").parse::<nix::sys::signal::Signal>().unwrap())
            .unwrap();
    }

    /// Waits for its end and returns the exit status.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        super::wait_for("the daemon ends", || self.child.try_wait().unwrap()).code()
    }

    /// TERM, then waits for the end.
    #[track_caller]
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.wait()
    }

    /// The same, and all its lines.
    #[track_caller]
    pub fn stop_with_log(mut self) -> Vec<String> {
        self.signal("TERM");
        self.wait();
        self.line("stopped");
        self.log()
    }

    /// KILL: no goodbye, no state written.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// CPU time used so far, by all threads.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
