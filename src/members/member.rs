//! One member: what its last accepted announcement said, when that was, and whether traffic should go to it.

use super::{Announce, Facts, Writer};
use crate::bytes::same;
use crate::clock::{Mono, micros};
use crate::wheel::TimerId;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Names a member within its balancer. Once the member is forgotten the id is stale, and finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Whether traffic should go to a member, and if not, why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Heard within its timeout, or held because its silence proves nothing.
    Up,
    /// Evicted: silent for longer than its timeout.
    Down,
    /// Said goodbye.
    Left,
}

impl State {
    /// The word for it in `status` and in the state file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Left => "left",
        }
    }
}

/// A member of a balancer. Strings in one allocation and times as integers: a table of 100,000 is real.
#[derive(Debug)]
pub struct Member {
    /// The announced host name, then the url.
    text: Box<[u8]>,
    host_len: u8,
    pub(super) state: State,
    /// Set once two sources were seen announcing this url.
    shared: bool,
    pub(super) weight: u16,
    key: u16,
    port: u16,
    ip: IpAddr,
    pid: u32,
    /// Who brought it here last, and passed its url.
    pub(super) writer: Writer,
    /// The announced interval in milliseconds, 0 if none.
    every_ms: u32,
    /// Of the url; kept so that the index can be mended without reading urls.
    pub(super) hash: u32,
    /// The one timer: eviction while up, forgetting while dead.
    pub(super) timer: Option<TimerId>,
    /// In microseconds, 0 if it is never evicted.
    pub(super) timeout: u64,
    /// The last accepted timestamp; `NO_MARK` before the first.
    pub(super) mark: i64,
    /// When the last valid message about it came.
    pub(super) last_seen: Mono,
    /// When it was evicted or left; for a dead member, moved on by a further goodbye.
    pub(super) dead_since: Mono,
}

impl Member {
    pub(super) fn new(a: &Announce<'_>, hash: u32, now: Mono) -> Member {
        let mut member = Member {
            text: Box::default(),
            host_len: 0,
            state: State::Up,
            shared: false,
            weight: a.weight,
            key: a.key,
            port: a.from.port(),
            ip: a.from.ip(),
            pid: a.pid,
            writer: a.writer,
            every_ms: 0,
            hash,
            timer: None,
            timeout: 0,
            mark: NO_MARK,
            last_seen: now,
            dead_since: Mono::ZERO,
        };
        member.set_text(a.url, bounded(a.host));
        member.hear(a, now);
        member
    }

    /// Takes over what an accepted announcement says. Allocates only if the host name is another.
    pub(super) fn hear(&mut self, a: &Announce<'_>, now: Mono) -> Facts {
        let same_host = same(self.host(), bounded(a.host));
        let second_source = self.notice_source(a, same_host);
        let reweighted = (self.weight != a.weight).then_some(self.weight);
        if a.replay_check {
            self.mark = self.mark.max(a.ts);
        }
        self.last_seen = now;
        self.weight = a.weight;
        self.key = a.key;
        self.writer = a.writer;
        self.timeout = micros(a.timeout);
        self.every_ms = a.every.map_or(0, whole_ms);
        (self.ip, self.port, self.pid) = (a.from.ip(), a.from.port(), a.pid);
        if !same_host {
            let url = self.url().to_vec();
            self.set_text(&url, bounded(a.host));
        }
        Facts { reweighted, second_source, ..Facts::default() }
    }

    /// The url, as admission shaped it: what the member is known by.
    #[must_use]
    #[inline(always)]
    pub fn url(&self) -> &[u8] {
        self.text.get(usize::from(self.host_len)..).unwrap_or_default()
    }

    /// The url as text. An admitted url is plain ASCII and comes as it is; should it not be UTF-8, the offending
    /// bytes are replaced.
    #[must_use]
    pub fn url_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.url())
    }

    /// The host name the sender gave, at most [`MAX_HOST`] bytes of it. Untrusted: escape it when showing it.
    #[must_use]
    #[inline(always)]
    pub fn host(&self) -> &[u8] {
        self.text.get(..usize::from(self.host_len)).unwrap_or_default()
    }

    /// Whether traffic should go to it.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The announced weight, 0 to 256.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// The announced interval, if there was one, in whole milliseconds.
    #[must_use]
    pub fn every(&self) -> Option<Duration> {
        (self.every_ms > 0).then(|| Duration::from_millis(self.every_ms.into()))
    }

    /// The silence after which it is evicted, as its listener has it; zero if never.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout)
    }

    /// Where its last accepted announcement came from.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }

    /// The process that announced it, by its own account.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Which of its listener's keys signed the last accepted announcement.
    #[must_use]
    pub fn key(&self) -> u16 {
        self.key
    }

    /// The replay mark: the last timestamp accepted for this url, in microseconds since the Unix epoch.
    #[must_use]
    pub fn mark(&self) -> Option<i64> {
        (self.mark != NO_MARK).then_some(self.mark)
    }

    /// When the last valid message about it came.
    #[must_use]
    pub fn last_seen(&self) -> Mono {
        self.last_seen
    }

    /// When it was evicted or said goodbye; `None` while it is up.
    #[must_use]
    pub fn dead_since(&self) -> Option<Mono> {
        (self.state != State::Up).then_some(self.dead_since)
    }

    /// Two sources announce one url: another address than last time speaks for a member that is up. Noticed once.
    /// One process heard over both address families is one source.
    fn notice_source(&mut self, a: &Announce<'_>, same_host: bool) -> Option<IpAddr> {
        let ip = a.from.ip();
        if self.ip == ip {
            return None;
        }
        let same_process = self.pid == a.pid && same_host;
        let other = !(same_process && self.ip.is_ipv4() != ip.is_ipv4());
        if self.shared || self.state != State::Up || self.ip.is_unspecified() || !other {
            return None;
        }
        self.shared = true;
        Some(self.ip)
    }

    fn set_text(&mut self, url: &[u8], host: &[u8]) {
        self.host_len = u8::try_from(host.len()).expect("bounded to 255 bytes");
        self.text = [host, url].concat().into();
    }
}

/// The longest host name kept, in bytes; what is longer is cut.
pub const MAX_HOST: usize = 255;

/// Below every timestamp that can be fresh.
pub(super) const NO_MARK: i64 = i64::MIN;

fn bounded(host: &[u8]) -> &[u8] {
    host.get(..MAX_HOST).unwrap_or(host)
}

/// In whole milliseconds, at least one: 0 stands for no interval.
fn whole_ms(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX).max(1)
}
