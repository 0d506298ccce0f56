//! A sink that talks HTTP, at work: carries a machine's questions to its server and the answers back, and shows what
//! came of them.
//!
//! One question at a time, with deadlines; between them a timer. Every decision is the machine's.

use super::follow::{Follow, log_news};
use super::machine::{Ask, Machine, Todo};
use crate::clock::Mono;
use crate::http_client::{HttpClient, Limits, Outcome};
use crate::http1::{HttpUrl, Request};
use crate::reactor::{Cx, Done, Key, Ready, Service};
use crate::secret::Login;
use crate::url::Url;
use crate::wheel::TimerId;
use std::any::Any;
use std::io;
use std::time::Duration;

/// Who and where, of a sink behind HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    /// What the sink is called in logs and in `status`: `apache:cluster`.
    pub name: String,
    /// Its role, and so its log target.
    pub role: &'static str,
    /// The balancer whose members are followed.
    pub balancer: String,
    /// The server's url.
    pub url: HttpUrl,
}

/// A balancer behind HTTP that follows one of ours.
pub struct HttpSink<M> {
    site: Site,
    client: HttpClient,
    machine: M,
    timer: Option<TimerId>,
    table: Follow<String>,
}

impl<M: Machine> HttpSink<M> {
    /// A sink that has not started.
    #[must_use]
    pub fn new(site: Site, login: Option<Login>, machine: M) -> HttpSink<M> {
        let client = HttpClient::new(&site.url, LIMITS, CLIENT).with_login(login);
        HttpSink { site, client, machine, timer: None, table: Follow::default() }
    }

    /// Does what the machine says, until there is something to wait for.
    fn proceed(&mut self, cx: &mut Cx<'_>) {
        while !self.client.is_busy() {
            let (site, machine) = (&self.site, &self.machine);
            let place = |url: &Url| machine.place(url);
            let changed = self.table.refresh(&site.name, &site.balancer, place, cx);
            if changed {
                // Whoever looks first, this or `members_changed`: the machine must hear of it.
                self.machine.members_changed(cx.now.mono);
            }
            let todo = self.machine.next(self.table.want(), cx.now.mono);
            self.tell();
            if self.machine.views_moved() || changed {
                self.table.show(|key| self.machine.view(key), cx);
            }
            match todo {
                Todo::Ask(ask) => self.ask(&ask, cx),
                Todo::Wait(at) => return cx.rearm(&mut self.timer, TIMER, at),
            }
        }
    }

    fn ask(&mut self, ask: &Ask, cx: &mut Cx<'_>) {
        self.rest(cx);
        let level = if ask.body.is_some() { log::Level::Debug } else { log::Level::Trace };
        log::log!(target: self.site.role, level, "{}: {} {}", self.site.name, ask.method, ask.target);
        let headers: Vec<(&str, &str)> =
            ask.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = Request {
            method: ask.method,
            target: &ask.target,
            host: &self.site.url.authority,
            headers: &headers,
            body: ask.body.as_deref().map(str::as_bytes),
            close: false,
        };
        let outcome = self.client.ask(&request, cx).unwrap_or_else(|bad| Outcome::Failed(bad.to_string()));
        self.heed(outcome, cx);
    }

    fn heed(&mut self, outcome: Outcome, cx: &mut Cx<'_>) {
        let random = cx.random();
        match outcome {
            Outcome::Pending => {}
            Outcome::Answer(answer) => self.machine.answered(&answer, cx.now.mono, random),
            Outcome::Failed(why) => {
                let why = format!("{}: {why}", self.site.url);
                self.machine.failed(&why, cx.now.mono, random);
            }
        }
    }

    fn rest(&mut self, cx: &mut Cx<'_>) {
        cx.rearm(&mut self.timer, TIMER, Mono::NEVER);
    }

    /// Prints the machine's news.
    fn tell(&mut self) {
        log_news(self.site.role, &self.site.name, self.machine.news());
    }
}

impl<M: Machine> Service for HttpSink<M> {
    fn name(&self) -> String {
        self.site.name.clone()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.proceed(cx);
        Ok(())
    }

    fn ready(&mut self, _key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let kept = !self.client.is_busy() && self.client.is_connected();
        let outcome = self.client.ready(cx);
        if kept && !self.client.is_connected() {
            self.machine.closed(cx.now.mono);
        }
        self.heed(outcome, cx);
        self.proceed(cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == TIMER {
            self.timer = None;
        } else {
            let outcome = self.client.timer(cx);
            self.heed(outcome, cx);
        }
        self.proceed(cx);
    }

    fn done(&mut self, _key: Key, result: Done, cx: &mut Cx<'_>) {
        let outcome = self.client.done(result, cx);
        self.heed(outcome, cx);
        self.proceed(cx);
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        if self.table.is_behind(&self.site.balancer, cx) {
            self.machine.members_changed(cx.now.mono);
            self.proceed(cx);
        }
    }

    fn inherit(&mut self, old: Box<dyn Any>) {
        if let Ok(old) = old.downcast::<HttpSink<M>>()
            && old.site.url == self.site.url
        {
            self.machine.inherit(old.machine);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.client.close(cx);
        self.rest(cx);
        self.table.withdraw(cx);
    }
}

const CLIENT: Key = Key(0);
const TIMER: Key = Key(1);

/// A balancer's answer is some kilobytes; that of one with thousands of servers fits, too.
const LIMITS: Limits =
    Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2), body: 8 << 20 };
