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
use stage::Stage;
use std::io::{self, Write};
use std::sync::mpsc;
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
    /// The daemon was gone before the end.
    Alone,
}

/// Tells the story to `out` while `daemon`, which logs at `level`, takes part in it.
///
/// # Errors
/// The first step that was not observed and what was seen instead, or what kept it from beginning or ending.
pub fn run(level: LevelFilter, daemon: &Daemon<'_>, mut out: Out) -> Result<(), Error> {
    let fail = |why: String| Error::world(format!("demo: {why}"));
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
        let ending = tell(&mut story, &mut out);
        // The channel is closed when nobody waits any more.
        let _ = sender.send((ending, out));
        // Ends the daemon as an operator would; one that has ended no longer minds.
        let _ = kill(Pid::this(), Signal::SIGTERM);
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
        Ok((Ok(Ending::Alone), _)) | Err(_) => Err(fail("ended before every step was observed".to_owned())),
    }
}

/// Plays step after step, to the end or to the first that is not observed.
fn tell(story: &mut Story, out: &mut Out) -> io::Result<Ending> {
    for (n, step) in (1..).zip(STEPS) {
        match (step.act)(story) {
            Ok(seen) => say(out, story, &seen)?,
            Err(_) if !story.has_daemon() => return Ok(Ending::Alone),
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
