//! The tool `demo`: the whole story on loopback, with the real daemon in the leading role.
//!
//! The daemon runs as always, in the main thread, from a configuration file in a private folder; a second thread plays
//! the outside world ([`story`]), one step after the other. [`backend`] has the world's sockets, [`stage`] its places,
//! [`judge`] decides what was seen.

pub mod backend;
pub mod judge;
pub mod stage;
pub mod story;

use crate::clock::Seconds;
use crate::config::argv::Source;
use crate::config::{Builder, Error, Origin};
use crate::options::GLOBAL;
use log::LevelFilter;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use stage::Stage;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use story::{STEPS, Story};

/// Runs the roles of a source until a signal ends them.
pub type Daemon<'a> = dyn Fn(Source) -> Result<(), Error> + 'a;

/// Where the story is told, line by line.
pub type Out = Box<dyn Write + Send>;

/// How long a daemon that has ended may leave the teller in the middle of a step.
const LAST_WORD: Duration = Duration::from_millis(500);

/// How the telling ended.
enum Ending {
    /// Every step was observed, the last one at this time.
    Observed(Duration),
    /// A step was not: which, and what was seen instead.
    Failed(String),
    /// Somebody ended the daemon before.
    Interrupted,
}

/// Tells the story to `out` while `daemon`, which logs at `level`, takes part in it.
///
/// # Errors
/// The first step that was not observed and what was seen instead, or what kept it from beginning or ending.
pub fn run(level: LevelFilter, daemon: &Daemon<'_>, mut out: Out) -> Result<(), Error> {
    let fail = |why: String| Error::world(format!("demo: {why}"));
    // Before there is anything to clean up. The daemon has handlers of its own.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(&interrupted)).map_err(|e| fail(format!("signals: {e}")))?;
    }
    let (stage, _folder) = Stage::set(level).map_err(fail)?;
    let source = Source::File {
        global: Builder::new(&GLOBAL, Origin::Default, "").finish(),
        path: stage.config().to_string_lossy().into_owned(),
    };
    let ip = stage.ip;
    let mut story = Story::new(stage).map_err(fail)?;
    let mute = |e: io::Error| fail(format!("standard output: {e}"));
    say(&mut out, &story, &format!("three backends, their announcers, a listener and a proxy, all at {ip}"))
        .map_err(mute)?;
    let (sender, receiver) = mpsc::channel();
    let tell = move || {
        let ending = tell(&mut story, &interrupted, &mut out);
        // Where the daemon has failed, nobody waits any more. Else end it as an operator would; one that has ended
        // already no longer minds.
        if sender.send((ending, out)).is_ok() {
            let _ = kill(Pid::this(), Signal::SIGTERM);
        }
    };
    thread::Builder::new()
        .name("story".to_owned())
        .spawn(tell)
        .map_err(|e| fail(format!("cannot start a thread: {e}")))?;
    daemon(source)?;
    match receiver.recv_timeout(LAST_WORD) {
        Ok((Ok(Ending::Observed(time)), mut out)) => {
            writeln!(out, "all {} steps observed in {:.1} s", STEPS.len(), Seconds(time))
                .and_then(|()| out.flush())
                .map_err(mute)
        }
        Ok((Ok(Ending::Failed(seen)), _)) => Err(fail(seen)),
        Ok((Err(e), _)) => Err(mute(e)),
        Ok((Ok(Ending::Interrupted), _)) | Err(_) => {
            Err(fail("interrupted before every step was observed".to_owned()))
        }
    }
}

/// Plays step after step, to the end or to the first that is not observed.
fn tell(story: &mut Story, interrupted: &AtomicBool, out: &mut Out) -> io::Result<Ending> {
    for (n, step) in (1..).zip(STEPS) {
        let seen = (step.act)(story);
        // A daemon that is being ended lets everybody go: no step counts any more.
        if interrupted.load(Ordering::SeqCst) {
            return Ok(Ending::Interrupted);
        }
        match seen {
            Ok(seen) => say(out, story, &seen)?,
            Err(seen) => {
                let (all, name) = (STEPS.len(), step.name);
                return Ok(Ending::Failed(format!("step {n} of {all} not observed ({name}): {seen}")));
            }
        }
    }
    Ok(Ending::Observed(story.time()))
}

fn say(out: &mut Out, story: &Story, seen: &str) -> io::Result<()> {
    let time = format!("{:.1}", Seconds(story.time()));
    writeln!(out, "{time:>4} s  {seen}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_types, reason = "a test plays the daemon")]

    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    /// A control socket where every question has this answer.
    fn control(at: &Path, report: String) {
        let listener = UnixListener::bind(at).unwrap();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 64]);
                let _ = write!(stream, "ok\n{report}\n");
            }
        });
    }

    #[test]
    fn a_table_that_says_so_is_not_enough() {
        let (stage, _folder) = Stage::set(LevelFilter::Error).unwrap();
        let mut story = Story::new(stage.clone()).unwrap();
        let up = story.urls().map(|url| format!("{{\"url\":\"{url}\",\"state\":\"up\"}}"));
        control(&stage.control(), up.join(","));
        // Nobody listens where the proxy should.
        let mut out: Out = Box::new(io::sink());
        let Ok(Ending::Failed(seen)) = tell(&mut story, &AtomicBool::new(false), &mut out) else {
            unreachable!()
        };
        let expected =
            "step 2 of 7 not observed (requests reach all three): 1 request: 1 failed (Connection refused)";
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_daemon_that_fails_is_heard_and_nothing_stays() {
        let mut place = None;
        let seen = std::sync::Mutex::new(&mut place);
        let daemon = |source: Source| {
            let Source::File { path, .. } = source else { unreachable!() };
            assert!(Path::new(&path).exists());
            **seen.lock().unwrap() = Some(path);
            Err(Error::world("no such thing"))
        };
        let error = run(LevelFilter::Error, &daemon, Box::new(io::sink())).unwrap_err();
        assert_eq!((error.status, error.message.as_str()), (1, "no such thing"));
        assert!(!Path::new(&place.unwrap()).exists());
    }

    #[test]
    fn a_daemon_that_ends_early_leaves_the_story_untold() {
        let error = run(LevelFilter::Error, &|_| Ok(()), Box::new(io::sink())).unwrap_err();
        assert_eq!(error.message, "demo: interrupted before every step was observed");
    }
}
