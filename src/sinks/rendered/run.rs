//! A command or a question that is one step of the way from a new file to its being in force.

use crate::clock::Mono;
use crate::http_client::{HttpClient, Limits, Outcome};
use crate::http1::{HttpUrl, Request};
use crate::process::{Child, Command, Keys};
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Key};
use std::time::Duration;

/// A command that runs.
pub struct Run {
    child: Child,
    lines: Vec<String>,
    killed: bool,
}

impl Run {
    /// Starts it.
    ///
    /// # Errors
    /// One line that says why not.
    pub fn spawn(argv: &[String], env: &[(&str, &str)], keys: Keys, cx: &mut Cx<'_>) -> Result<Run, String> {
        let command = Command { argv, env, input: Vec::new() };
        match Child::spawn(command, keys, cx) {
            Ok(child) => Ok(Run { child, lines: Vec::new(), killed: false }),
            Err(e) => Err(format!("cannot run {}: {}", argv.first().map_or("", String::as_str), plain(&e))),
        }
    }

    /// One of its keys is ready.
    pub fn ready(&mut self, key: Key, cx: &mut Cx<'_>) {
        self.child.ready(key, cx, &mut |line| self.lines.push(line.to_owned()));
    }

    /// Its time is up.
    pub fn kill(&mut self) {
        self.killed = true;
        self.child.kill();
    }

    /// A child of the process has ended: what came of this one, if it was it, and its standard error.
    pub fn exited(&mut self, cx: &mut Cx<'_>) -> Option<(Result<(), String>, Vec<String>)> {
        let exit = self.child.exited(cx, &mut |line| self.lines.push(line.to_owned()))?;
        let lines = std::mem::take(&mut self.lines);
        let said = lines.first().map_or(String::new(), |line| format!(": {line}"));
        let result = match self.killed {
            true => Err(format!("killed after {} s{said}", COMMAND_TIME.as_secs())),
            false if exit.success() => Ok(()),
            false => Err(format!("{exit}{said}")),
        };
        Some((result, lines))
    }

    /// Stops watching it; dropped, it is killed.
    pub fn unwatch(&mut self, cx: &mut Cx<'_>) {
        self.child.unwatch(cx);
    }
}

/// Asks an HTTP server again and again until it answers what it should.
pub struct Inquiry {
    client: HttpClient,
    url: HttpUrl,
    wanted: String,
    until: Mono,
}

/// What came of asking.
pub enum Asked {
    /// Nothing yet.
    Pending,
    /// It answers what it should.
    Right,
    /// Not yet: ask again then.
    Again(Mono),
    /// It did not in time, and what it said last.
    Wrong(String),
}

impl Inquiry {
    /// Nothing is asked yet. The client's events have `key`.
    #[must_use]
    pub fn new(url: &HttpUrl, wanted: String, key: Key, now: Mono) -> Inquiry {
        let limits = Limits { connect: ANSWER_TIME, answer: ANSWER_TIME, body: 4096 };
        let client = HttpClient::new(url, limits, key);
        Inquiry { client, url: url.clone(), wanted, until: now.after(VERIFY_TIME) }
    }

    /// Asks, on a connection of its own: a kept one would lead to the old workers.
    pub fn ask(&mut self, cx: &mut Cx<'_>) -> Asked {
        let request = Request {
            method: "GET",
            target: &self.url.target,
            host: &self.url.authority,
            headers: &[],
            body: None,
            close: true,
        };
        match self.client.ask(&request, cx) {
            Ok(outcome) => self.judge(outcome, cx),
            Err(e) => Asked::Wrong(e.to_string()),
        }
    }

    /// Its source is ready.
    pub fn ready(&mut self, cx: &mut Cx<'_>) -> Asked {
        let outcome = self.client.ready(cx);
        self.judge(outcome, cx)
    }

    /// Its timer is due.
    pub fn timer(&mut self, cx: &mut Cx<'_>) -> Asked {
        let outcome = self.client.timer(cx);
        self.judge(outcome, cx)
    }

    /// Its job is done.
    pub fn done(&mut self, result: Done, cx: &mut Cx<'_>) -> Asked {
        let outcome = self.client.done(result, cx);
        self.judge(outcome, cx)
    }

    /// Gives up.
    pub fn close(&mut self, cx: &mut Cx<'_>) {
        self.client.close(cx);
    }

    fn judge(&self, outcome: Outcome, cx: &Cx<'_>) -> Asked {
        let said = match outcome {
            Outcome::Pending => return Asked::Pending,
            Outcome::Answer(answer) if answer.status == 200 => {
                if answer.body.trim_ascii() == self.wanted.as_bytes() {
                    return Asked::Right;
                }
                "another generation".to_owned()
            }
            Outcome::Answer(answer) => format!("status {}", answer.status),
            Outcome::Failed(why) => why,
        };
        let again = cx.now.mono.after(PAUSE);
        if again < self.until {
            Asked::Again(again)
        } else {
            Asked::Wrong(format!("{} says: {said}", self.url))
        }
    }
}

/// How long a command may take: nginx looks up the names of its configuration while it tests it.
pub const COMMAND_TIME: Duration = Duration::from_secs(30);
/// How long it may take until new workers answer.
const VERIFY_TIME: Duration = Duration::from_secs(5);
const ANSWER_TIME: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
