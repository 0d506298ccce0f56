//! The sender at work: when to announce, when to fall silent, when to say goodbye.

use super::Config;
use super::receivers::Receiver;
use super::stamp::{Stamps, jittered};
use crate::beacon::health::Change;
use crate::beacon::probe::{self, Probe};
use crate::beacon::wire::Announce;
use crate::reactor::bank::plain;
use crate::reactor::{Cx, Done, Job, Key, Ready, Service};
use crate::url::Url;
use crate::wheel::TimerId;
use std::any::Any;
use std::io;
use std::time::Duration;

/// How often a goodbye is said: it is only a datagram.
const GOODBYES: u32 = 3;
/// Between two goodbyes.
const BETWEEN: Duration = Duration::from_millis(20);
/// When to ask again for a lookup that the helper had no room for.
const LATER: Duration = Duration::from_secs(1);

const ANNOUNCE: Key = Key(0);
const RESOLVE: Key = Key(1);
const GOODBYE: Key = Key(2);
const PROBE: Key = Key(3);
/// Lookups of the first receiver's name and on.
const LOOKUP: usize = PROBE.0 + probe::KEYS;

/// A sender.
pub struct Announcer {
    config: Config,
    receivers: Vec<Receiver>,
    stamps: Stamps,
    seq: u64,
    probe: Option<Probe>,
    ticking: Option<TimerId>,
    /// Something was announced that no goodbye has taken back.
    known: bool,
    goodbyes_left: u32,
    draining: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Here,
    Goodbye,
}

impl Announcer {
    /// A sender that has not started.
    #[must_use]
    pub fn new(config: Config) -> Announcer {
        let probe = config.health.as_ref().map(|health| Probe::new(health.clone(), PROBE));
        Announcer {
            receivers: config.addresses.iter().map(Receiver::new).collect(),
            config,
            stamps: Stamps::default(),
            seq: 0,
            probe,
            ticking: None,
            known: false,
            goodbyes_left: 0,
            draining: false,
        }
    }

    fn fit(&self) -> bool {
        !self.draining && self.probe.as_ref().is_none_or(Probe::is_open)
    }

    /// Announces now and arms the next time.
    fn announce(&mut self, cx: &mut Cx<'_>) {
        if let Some(timer) = self.ticking.take() {
            cx.cancel(timer);
        }
        if !self.fit() {
            return;
        }
        // A goodbye under way is taken back.
        self.goodbyes_left = 0;
        self.send(Kind::Here, None, cx);
        self.known = self.config.advertise.is_some();
        self.seq += 1;
        let interval = self.config.interval;
        let gap = if self.config.jitter { jittered(interval, cx.random()) } else { interval };
        self.ticking = Some(cx.arm(ANNOUNCE, cx.now.mono.after(gap)));
    }

    /// Sends to all receivers, or to one.
    fn send(&mut self, kind: Kind, only: Option<usize>, cx: &Cx<'_>) {
        let Announcer { config, receivers, stamps, seq, .. } = self;
        let mut compose = |url: Option<&Url>| {
            let one = |ts: i64| Announce {
                url,
                host: &config.host,
                pid: std::process::id(),
                seq: *seq,
                ts,
                every: Some(config.interval),
                weight: url.map(|_| config.weight),
                to: config.balancer.as_deref(),
            };
            let text = |ts: i64| match kind {
                Kind::Here => one(ts).to_text(),
                Kind::Goodbye => one(ts).to_goodbye(),
            };
            if config.keys.is_empty() {
                return vec![text(stamps.next(cx.now.unix_us))];
            }
            let signed = config.keys.iter().map(|key| {
                let mut datagram = text(stamps.next(cx.now.unix_us));
                key.sign(&mut datagram);
                datagram
            });
            signed.collect()
        };
        let chosen = receivers.iter_mut().enumerate().filter(|(n, _)| only.is_none_or(|only| only == *n));
        for route in chosen.flat_map(|(_, receiver)| receiver.routes()) {
            route.send(config.advertise.as_ref(), &config.admission, &mut compose);
        }
    }

    /// Begins to say goodbye, if there is anything to take back.
    fn say_goodbye(&mut self, cx: &mut Cx<'_>) {
        if std::mem::take(&mut self.known) && self.goodbyes_left == 0 {
            self.goodbyes_left = GOODBYES;
            self.goodbye(cx);
        }
    }

    fn goodbye(&mut self, cx: &mut Cx<'_>) {
        if self.goodbyes_left == 0 {
            return;
        }
        self.send(Kind::Goodbye, None, cx);
        self.seq += 1;
        self.goodbyes_left -= 1;
        if self.goodbyes_left > 0 {
            cx.arm(GOODBYE, cx.now.mono.after(BETWEEN));
        }
    }

    /// Looks every name up, and asks the kernel anew for the way to every address.
    fn resolve(&mut self, cx: &mut Cx<'_>) {
        let mut again = self.config.resolve_interval;
        for (n, receiver) in self.receivers.iter_mut().enumerate() {
            receiver.reroute();
            if let Some(addr) = receiver.literal() {
                receiver.resolved(vec![addr]);
            } else if !receiver.resolving {
                let job = Job::Resolve { host: receiver.host.clone(), port: receiver.port };
                match cx.offload(Key(LOOKUP + n), job) {
                    Ok(()) => receiver.resolving = true,
                    Err(_) => again = again.min(LATER),
                }
            }
        }
        cx.arm(RESOLVE, cx.now.mono.after(again));
    }

    fn heed(&mut self, change: Option<Change>, cx: &mut Cx<'_>) {
        match change {
            Some(Change::Opened) => {
                log::info!(target: "announce", "healthy: announcing");
                self.announce(cx);
            }
            Some(Change::Closed) => {
                let how = if self.config.leave_on_fail { "saying goodbye" } else { "falling silent" };
                log::warn!(target: "announce", "unhealthy: {how}");
                if self.config.leave_on_fail {
                    self.say_goodbye(cx);
                }
            }
            None => {}
        }
    }
}

impl Service for Announcer {
    fn name(&self) -> String {
        let what = match &self.config.advertise {
            Some(advertise) => advertise.to_string(),
            None => "heartbeat".to_owned(),
        };
        format!("announce:{what}")
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> io::Result<()> {
        if self.config.keys.is_empty() {
            log::warn!(target: "announce", "UNAUTHENTICATED: announcements are not signed");
        }
        self.resolve(cx);
        self.announce(cx);
        let change = self.probe.as_mut().and_then(|probe| probe.start(cx));
        self.heed(change, cx);
        Ok(())
    }

    fn ready(&mut self, key: Key, _ready: Ready, cx: &mut Cx<'_>) {
        let change = self.probe.as_mut().and_then(|probe| probe.ready(key, cx));
        self.heed(change, cx);
    }

    fn timer(&mut self, key: Key, cx: &mut Cx<'_>) {
        match key {
            ANNOUNCE => {
                self.ticking = None;
                self.announce(cx);
            }
            RESOLVE => self.resolve(cx),
            GOODBYE => self.goodbye(cx),
            _ => {
                let change = self.probe.as_mut().and_then(|probe| probe.timer(key, cx));
                self.heed(change, cx);
            }
        }
    }

    fn done(&mut self, key: Key, result: Done, cx: &mut Cx<'_>) {
        let Done::Resolved(found) = result else { return };
        let Some(at) = key.0.checked_sub(LOOKUP) else {
            let change = self.probe.as_mut().and_then(|probe| probe.resolved(found, cx));
            return self.heed(change, cx);
        };
        let Some(receiver) = self.receivers.get_mut(at) else { return };
        receiver.resolving = false;
        match found {
            Ok(found) => {
                let new = receiver.resolved(found);
                // Who has just become known need not wait for the next round.
                if new && self.fit() {
                    self.send(Kind::Here, Some(at), cx);
                    self.known = self.config.advertise.is_some();
                }
            }
            Err(e) => receiver.unresolved(&plain(&e)),
        }
    }

    fn child_exited(&mut self, cx: &mut Cx<'_>) {
        let change = self.probe.as_mut().and_then(|probe| probe.child_exited(cx));
        self.heed(change, cx);
    }

    fn inherit(&mut self, old: Box<dyn Any>) {
        let Ok(old) = old.downcast::<Announcer>() else { return };
        self.stamps = old.stamps;
        self.seq = old.seq;
        self.known = old.known;
        if let (Some(new), Some(old)) = (&mut self.probe, old.probe) {
            new.inherit(old);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        if let Some(probe) = &mut self.probe {
            probe.stop(cx);
        }
    }

    fn drain(&mut self, cx: &mut Cx<'_>) -> bool {
        if !std::mem::replace(&mut self.draining, true) {
            self.say_goodbye(cx);
        }
        let probed = self.probe.as_mut().is_none_or(|probe| probe.drain(cx));
        probed && self.goodbyes_left == 0
    }
}
