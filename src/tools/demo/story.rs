//! The steps of the demo, in order: what the outside world does, and by what it sees that the daemon answered rightly.
//!
//! Seen is what a client of the proxy gets and what the member table says, never a log line.

use super::backend::{Backend, get, refuses};
use super::judge::{Table, Tally};
use super::stage::{INTERVAL, Secret, Stage, TIMEOUT};
use crate::admin::client::ask;
use crate::admin::request::Request;
use crate::clock::Seconds;
use crate::reactor::bank::plain;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long anything may take; it is the proxy that takes longest, to try a member again that refused connections.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at the table, and between two requests.
const PAUSE: Duration = Duration::from_millis(10);
/// Announcements of the rogue that must have been dropped.
const ROGUE: u64 = 3;

/// One step: what it is to show, and how that is seen.
pub struct Step {
    /// What is to be observed, in a few words.
    pub name: &'static str,
    /// Does it, and returns a line that says what was seen; or what was seen instead.
    pub act: fn(&mut Story) -> Result<String, String>,
}

/// The whole story.
pub const STEPS: &[Step] = &[
    Step { name: "three backends are found", act: Story::found },
    Step { name: "requests reach all three", act: Story::flow },
    Step { name: "a backend dies", act: Story::death },
    Step { name: "the dead one is evicted", act: Story::eviction },
    Step { name: "it returns and is used again", act: Story::return_ },
    Step { name: "a rogue is dropped", act: Story::rogue },
    Step { name: "one leaves by goodbye", act: Story::goodbye },
];

/// The outside world while the daemon runs.
pub struct Story {
    stage: Stage,
    started: Instant,
    webs: [Backend; 3],
    rogue: Backend,
    died: Duration,
}

impl Story {
    /// Starts the backends and writes the daemon's configuration.
    ///
    /// # Errors
    /// One line: what could not be had.
    #[expect(clippy::disallowed_methods, reason = "the story has its own watch, beside the loop's")]
    pub fn new(stage: Stage) -> Result<Story, String> {
        let start = |name| Backend::start(name, SocketAddr::from((stage.ip, 0)));
        let begin = || -> io::Result<Story> {
            let webs = [start("web1")?, start("web2")?, start("web3")?];
            stage.announce(&webs.each_ref().map(|web| (web, Secret::Right)))?;
            let rogue = start("rogue")?;
            Ok(Story { stage: stage.clone(), started: Instant::now(), webs, rogue, died: Duration::ZERO })
        };
        begin().map_err(|e| format!("{}: {}", stage.ip, plain(&e)))
    }

    /// How long it has been going on.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the three backends are announced as.
    #[cfg(test)]
    pub fn urls(&self) -> [String; 3] {
        self.webs.each_ref().map(Backend::url)
    }

    fn found(&mut self) -> Result<String, String> {
        self.until(|story, table| {
            let down = story.webs.iter().find(|web| table.state(&web.url()) != Some("up"));
            down.map_or(Ok(()), |web| Err(format!("{} is {} in the table", web.name(), state(table, web))))
        })?;
        Ok("web1, web2 and web3 have announced themselves: up in the table".to_owned())
    }

    fn flow(&mut self) -> Result<String, String> {
        self.round(&["web1", "web2", "web3"]).map(|tally| format!("through the proxy, {tally}"))
    }

    fn death(&mut self) -> Result<String, String> {
        self.died = self.time();
        self.webs[1].die();
        if !refuses(self.webs[1].addr()) {
            return Err("its port still accepts connections".to_owned());
        }
        Ok("web2 dies: its port refuses connections".to_owned())
    }

    fn eviction(&mut self) -> Result<String, String> {
        let mut meanwhile = Tally::default();
        self.until(|story, table| {
            meanwhile.note(get(story.stage.proxy));
            seen(table, &story.webs[1], "down")?;
            at_least(table, "member.evicted", 1)
        })?;
        let after = self.time().saturating_sub(self.died);
        // The last announcement may be an interval older than the death; jitter makes that a tenth longer.
        if after + INTERVAL + INTERVAL / 10 < TIMEOUT {
            return Err(format!("it was evicted after {:.1} s, too soon for silence", Seconds(after)));
        }
        meanwhile.judge(&["web1", "web3"])?;
        self.round(&["web1", "web3"])?;
        Ok(format!("web2 is evicted {:.1} s after its death; until then {meanwhile}", Seconds(after)))
    }

    fn return_(&mut self) -> Result<String, String> {
        let back = self.time();
        self.webs[1].revive().map_err(|e| format!("its port cannot be had again: {}", plain(&e)))?;
        self.until(|story, table| {
            seen(table, &story.webs[1], "up")?;
            at_least(table, "member.revived", 1)
        })?;
        let up = Seconds(self.time().saturating_sub(back));
        // The proxy may have left it out for a while of its own.
        self.round(&["web1", "web2", "web3"])?;
        let used = Seconds(self.time().saturating_sub(back));
        let then = self.round(&["web1", "web2", "web3"])?;
        Ok(format!("web2 returns: up after {up:.1} s, used after {used:.1} s; {then}"))
    }

    fn rogue(&mut self) -> Result<String, String> {
        const DROPPED: &str = "beacon.drop.mac_mismatch";
        let before = Table(&self.report()?).counter(DROPPED);
        let [web1, web2, web3] = self.webs.each_ref().map(|web| (web, Secret::Right));
        self.reload(&[web1, web2, web3, (&self.rogue, Secret::Wrong)])?;
        self.until(|story, table| {
            if let Some(state) = table.state(&story.rogue.url()) {
                return Err(format!("the rogue is {state} in the table"));
            }
            at_least(table, DROPPED, before + ROGUE)
        })?;
        let dropped = Table(&self.report()?).counter(DROPPED) - before;
        let then = self.round(&["web1", "web2", "web3"])?;
        Ok(format!("a rogue with a wrong secret: {dropped} times dropped (mac mismatch); {then}"))
    }

    fn goodbye(&mut self) -> Result<String, String> {
        let [web1, web2, _] = self.webs.each_ref().map(|web| (web, Secret::Right));
        let stopped = self.time();
        self.reload(&[web1, web2, (&self.rogue, Secret::Wrong)])?;
        self.until(|story, table| {
            seen(table, &story.webs[2], "left")?;
            at_least(table, "member.left", 1)
        })?;
        let after = self.time().saturating_sub(stopped).as_millis();
        let then = self.round(&["web1", "web2"])?;
        Ok(format!("web3 says goodbye and has left {after} ms later; {then}"))
    }

    /// Requests through the proxy until a round is whole.
    fn round(&self, wanted: &[&str]) -> Result<Tally, String> {
        let by = self.time() + PATIENCE;
        let mut tally = Tally::default();
        while !tally.is_decided(wanted) && self.time() < by {
            tally.note(get(self.stage.proxy));
            pause();
        }
        tally.judge(wanted).map(|()| tally)
    }

    /// Waits until the table is as `is` wants it; at last what `is` says against it.
    fn until(&self, mut is: impl FnMut(&Story, Table<'_>) -> Result<(), String>) -> Result<(), String> {
        let by = self.time() + PATIENCE;
        loop {
            let verdict = self.report().and_then(|report| is(self, Table(&report)));
            if verdict.is_ok() || self.time() >= by {
                return verdict.map_err(|seen| format!("{seen} after {} s", Seconds(PATIENCE)));
            }
            pause();
        }
    }

    fn report(&self) -> Result<String, String> {
        ask(&self.stage.control(), &Request::Status { json: true, sessions: false })
    }

    fn reload(&self, backends: &[(&Backend, Secret)]) -> Result<(), String> {
        self.stage.announce(backends).map_err(|e| plain(&e))?;
        ask(&self.stage.control(), &Request::Reload).map(drop)
    }
}

fn state<'a>(table: Table<'a>, web: &Backend) -> &'a str {
    table.state(&web.url()).unwrap_or("not")
}

fn seen(table: Table<'_>, web: &Backend, wanted: &str) -> Result<(), String> {
    let state = state(table, web);
    if state == wanted { Ok(()) } else { Err(format!("{} is {state} in the table", web.name())) }
}

fn at_least(table: Table<'_>, counter: &str, wanted: u64) -> Result<(), String> {
    let count = table.counter(counter);
    if count >= wanted { Ok(()) } else { Err(format!("{counter} is {count}")) }
}

#[expect(clippy::disallowed_methods, reason = "the story is told in a thread of its own")]
fn pause() {
    std::thread::sleep(PAUSE);
}
