//! The sink at work: carries the machine's calls to etcd and the answers back, tells it what the table has, and shows
//! what came of it. Every decision is the machine's.

use super::Config;
use super::layout::Card;
use super::link::{LINK, Link, Reply};
use super::machine::{Facts, Machine, State, Todo};
use crate::clock::Mono;
use crate::reactor::{Cx, Done, Key, Ready, Service};
use crate::sinks::follow::{Follow, log_news};
use crate::url::Url;
use crate::views::ViewState;
use crate::wheel::TimerId;
use std::any::Any;
use std::io;
use std::time::Duration;

/// Members of a balancer, kept in etcd.
pub struct Etcd {
    config: Config,
    machine: Machine,
    link: Link,
    table: Follow<Url>,
    timer: Option<TimerId>,
    closing: bool,
}

impl Etcd {
    /// A sink that has not started.
    #[must_use]
    pub fn new(config: Config) -> Etcd {
        Etcd {
            machine: Machine::new(config.site.clone(), config.pace),
            link: Link::new(config.endpoints.clone(), config.login.clone()),
            config,
            table: Follow::default(),
            timer: None,
            closing: false,
        }
    }

    /// Does what the machine says, until there is something to wait for.
    fn proceed(&mut self, cx: &mut Cx<'_>) {
        while !self.link.is_busy() {
            let changed =
                self.table.refresh(&self.config.name, &self.config.site.balancer, |url| Ok(url.clone()), cx);
            if changed {
                self.inform(cx);
            }
            let todo = self.machine.next(cx.now);
            self.tell(cx);
            if self.machine.views_moved() || changed {
                let view = |url: &Url| {
                    let (state, error) = self.machine.view(url);
                    (view_state(state), error)
                };
                self.table.show(view, cx);
            }
            match todo {
                Todo::Wait(at) => return cx.rearm(&mut self.timer, TIMER, at),
                Todo::Send(call) => {
                    let reply = self.link.ask(call, cx);
                    self.heard(reply, cx);
                }
            }
        }
    }

    fn heard(&mut self, reply: Option<Reply>, cx: &mut Cx<'_>) {
        let random = cx.random();
        match reply {
            Some(Ok((status, body))) => self.machine.answered(status, &body, cx.now, random),
            Some(Err(why)) => self.machine.failed(&why, cx.now.mono, random),
            None => {}
        }
    }

    /// Tells the machine what the table has now: times and marks move without a change of the members.
    fn inform(&mut self, cx: &Cx<'_>) {
        let members = &cx.shared.members;
        let Some(id) = members.find(&self.config.site.balancer) else {
            // A reload has taken away whoever brought members in: nobody hears them any more.
            return self.machine.inform(self.table.want(), Vec::new(), Duration::ZERO, cx.now.mono);
        };
        let facts = members.members(id).filter_map(|(_, member)| {
            let card = Card {
                weight: member.weight(),
                host: member.host().to_vec(),
                pid: member.pid(),
                every_ms: member.every().map_or(0, |e| u32::try_from(e.as_millis()).unwrap_or(u32::MAX)),
            };
            let (timeout, last_seen) = (member.timeout(), member.last_seen());
            Some((Url::parse(member.url()).ok()?, Facts { card, timeout, last_seen, mark: member.mark() }))
        });
        let max_skew = members.policy(id).map_or(Duration::ZERO, |policy| policy.max_skew);
        self.machine.inform(self.table.want(), facts.collect(), max_skew, cx.now.mono);
    }

    /// Hands on what the machine has found, and prints its news.
    fn tell(&mut self, cx: &mut Cx<'_>) {
        let members = &mut cx.shared.members;
        let found = self.machine.found();
        if let Some(id) = members.find(&self.config.site.balancer).filter(|_| !found.is_empty()) {
            found
                .iter()
                .for_each(|(url, mark)| members.recall(id, url.text().as_bytes(), *mark, cx.now.mono));
            log::info!(target: "etcd", "{}: {} replay mark(s) taken over", self.config.name, found.len());
        }
        log_news("etcd", &self.config.name, self.machine.news());
    }
}

impl Service for Etcd {
    fn name(&self) -> String {
        self.config.name.clone()
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        self.proceed(cx);
        Ok(())
    }

    fn ready(&mut self, _key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let reply = self.link.ready(cx);
        self.heard(reply, cx);
        self.proceed(cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        if key == LINK {
            let reply = self.link.timer(cx);
            self.heard(reply, cx);
        } else {
            self.timer = None;
            self.inform(cx);
        }
        self.proceed(cx);
    }

    fn done(&mut self, _key: Key, result: Done, cx: &mut Cx<'_>) {
        let reply = self.link.done(result, cx);
        self.heard(reply, cx);
        self.proceed(cx);
    }

    fn members_changed(&mut self, cx: &mut Cx<'_>) {
        if self.table.is_behind(&self.config.site.balancer, cx) {
            self.machine.members_changed(cx.now.mono);
            self.proceed(cx);
        }
    }

    fn inherit(&mut self, old: Box<dyn Any>) {
        if let Ok(old) = old.downcast::<Etcd>()
            && (&old.config.site, old.config.pace) == (&self.config.site, self.config.pace)
        {
            self.machine = old.machine;
            self.machine.resume();
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.link.close(cx);
        cx.rearm(&mut self.timer, TIMER, Mono::NEVER);
        self.table.withdraw(cx);
    }

    /// Leaves behind when everybody was heard last, so that whoever starts next knows what is a replay.
    fn drain(&mut self, cx: &mut Cx<'_>) -> bool {
        if !std::mem::replace(&mut self.closing, true) {
            self.inform(cx);
            self.machine.close();
            self.proceed(cx);
        }
        !self.link.is_busy() && self.machine.is_done(cx.now.mono)
    }
}

fn view_state(state: State) -> ViewState {
    match state {
        State::There => ViewState::Up,
        State::Leaving => ViewState::Draining,
        State::Missing => ViewState::Down,
    }
}

const TIMER: Key = Key(1);
