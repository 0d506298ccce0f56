//! The balancers that a proxy's routes lead to, each with its pool: the member table's levels carried over, and what
//! becomes of the sessions of a member that goes.

use super::balance::{Choice, Config, Member, Pool, SEED};
use crate::clock::{Mono, Now};
use crate::members::{self, BalancerId, MemberId, State};
use crate::shared::Shared;
use crate::sinks::{Refused, address};
use crate::url::Url;
use crate::views::{SinkId, ViewState};
use std::net::SocketAddr;
use std::time::Duration;

/// All pools of a proxy. One that no route leads to any more stays for the sessions that it has.
#[derive(Debug)]
pub struct Pools {
    /// The proxy's name, under which `status` shows what it makes of members, until it is withdrawn.
    sink: Option<String>,
    config: Config,
    pools: Vec<Entry>,
    /// Something has changed since that was last asked.
    moved: bool,
    /// Something was shown since that was last asked.
    shown: bool,
}

#[derive(Debug)]
struct Entry {
    balancer: String,
    pool: Pool,
    /// What the table called the balancer when it was last looked at, and how often its members had changed.
    seen: Option<(BalancerId, u64)>,
    /// Members whose host is a name.
    refused: Vec<(MemberId, Refused)>,
    /// When a member that is shown as left out is back.
    due: Mono,
}

impl Pools {
    /// None yet.
    #[must_use]
    pub fn new(sink: String, config: Config) -> Pools {
        Pools { sink: Some(sink), config, pools: Vec::new(), moved: false, shown: false }
    }

    /// Puts other rules in force.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = config;
        for entry in &mut self.pools {
            entry.pool.reconfigure(config);
        }
    }

    /// The number of a balancer's pool; it is made if it is not there.
    pub fn of(&mut self, balancer: &str) -> usize {
        let known = self.pools.iter().position(|entry| entry.balancer == balancer);
        known.unwrap_or_else(|| {
            self.pools.push(Entry {
                balancer: balancer.to_owned(),
                pool: Pool::new(self.config, SEED),
                seen: None,
                refused: Vec::new(),
                due: Mono::NEVER,
            });
            self.pools.len() - 1
        })
    }

    /// Carries over what has changed in the table.
    pub fn refresh(&mut self, shared: &mut Shared, now: Now) {
        for entry in &mut self.pools {
            let moved = entry.refresh(self.sink.as_deref(), shared, now);
            self.moved |= moved;
            self.shown |= moved;
        }
    }

    /// Shows everything anew: time alone has changed it.
    pub fn show(&mut self, shared: &mut Shared, now: Mono) {
        for entry in &mut self.pools {
            entry.show(self.sink.as_deref(), shared, now);
        }
        self.shown = true;
    }

    /// When to show everything anew, if that may have changed since the last call.
    pub fn take_due(&mut self) -> Option<Mono> {
        let due = || self.pools.iter().map(|entry| entry.due).min().unwrap_or(Mono::NEVER);
        std::mem::take(&mut self.shown).then(due)
    }

    /// Whether anything had changed since the last call, whoever carried it over.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Chooses a member that was not tried. A fresh announcement of one that is left out brings it back earlier.
    pub fn pick(
        &mut self,
        at: usize,
        key: &[u8],
        tried: &[MemberId],
        shared: &mut Shared,
        now: Now,
        random: u64,
    ) -> Option<Choice> {
        let entry = self.pools.get_mut(at)?;
        if let Some((balancer, _)) = entry.seen
            && entry
                .pool
                .hear(|id| shared.members.get(balancer, id).map(members::Member::last_seen), now.mono)
        {
            entry.show(self.sink.as_deref(), shared, now.mono);
            self.shown = true;
        }
        entry.pool.pick(key, tried, now.mono, random)
    }

    /// A session is being connected to a member.
    pub fn opened(&mut self, (at, member): (usize, MemberId)) {
        if let Some(entry) = self.pools.get_mut(at) {
            entry.pool.opened(member);
        }
    }

    /// It ended, having moved so many bytes from and to its client.
    pub fn closed(&mut self, (at, member): (usize, MemberId), bytes: (u64, u64)) {
        if let Some(entry) = self.pools.get_mut(at) {
            entry.pool.closed(member, bytes.0, bytes.1);
        }
    }

    /// It was connected.
    pub fn connected(&mut self, (at, member): (usize, MemberId), now: Mono) {
        if let Some(entry) = self.pools.get_mut(at) {
            entry.pool.connected(member, now);
        }
    }

    /// It could not be connected. If the member is left out for a while now: its url, and for how long.
    pub fn failed(
        &mut self,
        (at, member): (usize, MemberId),
        shared: &mut Shared,
        now: Now,
    ) -> Option<(String, Duration)> {
        let entry = self.pools.get_mut(at)?;
        let time = entry.pool.failed(member, now.mono)?;
        let (balancer, _) = entry.seen?;
        let url = shared.members.get(balancer, member)?.url_text().into_owned();
        entry.show(self.sink.as_deref(), shared, now.mono);
        self.shown = true;
        Some((url, time))
    }

    /// A member's state, while the table has it.
    #[must_use]
    pub fn state(&self, (at, member): (usize, MemberId), shared: &Shared) -> Option<State> {
        let (balancer, _) = self.pools.get(at)?.seen?;
        Some(shared.members.get(balancer, member)?.state())
    }

    /// A member's url, while the table has it.
    #[must_use]
    pub fn url(&self, (at, member): (usize, MemberId), shared: &Shared) -> Option<String> {
        let (balancer, _) = self.pools.get(at)?.seen?;
        Some(shared.members.get(balancer, member)?.url_text().into_owned())
    }

    /// The accounts of all members: number of the pool, and its row.
    pub fn rows(&self, now: Mono) -> impl Iterator<Item = (usize, super::balance::Row)> {
        self.pools
            .iter()
            .enumerate()
            .flat_map(move |(at, entry)| entry.pool.rows(now).map(move |row| (at, row)))
    }

    /// Takes back what `status` shows, for good: a successor of the same name may show its own.
    pub fn withdraw(&mut self, shared: &mut Shared) {
        let Some(sink) = self.sink.take() else { return };
        for (balancer, _) in self.pools.iter().filter_map(|entry| entry.seen) {
            let sink = shared.views.sink(&sink, balancer);
            shared.views.remove(sink);
        }
    }
}

impl Entry {
    fn refresh(&mut self, sink: Option<&str>, shared: &mut Shared, now: Now) -> bool {
        let Some(balancer) = shared.members.find(&self.balancer) else {
            let was = self.seen.take().is_some();
            self.pool.sync(std::iter::empty(), now.mono);
            return was;
        };
        let seen = (balancer, shared.members.revision(balancer));
        if self.seen == Some(seen) {
            return false;
        }
        self.seen = Some(seen);
        self.carry(shared, now);
        self.show(sink, shared, now.mono);
        true
    }

    /// Carries the levels over.
    fn carry(&mut self, shared: &Shared, now: Now) {
        let Some((balancer, _)) = self.seen else { return };
        let mut members = Vec::with_capacity(shared.members.count(balancer));
        self.refused.clear();
        for (id, member) in shared.members.members(balancer) {
            match reach(member.url()) {
                Ok(addr) => members.push(Member {
                    id,
                    addr,
                    weight: member.weight(),
                    up: member.state() == State::Up,
                    last_seen: member.last_seen(),
                }),
                Err(refused) => self.refused.push((id, refused)),
            }
        }
        self.pool.sync(members.into_iter(), now.mono);
    }

    /// Shows what the proxy makes of each member.
    fn show(&mut self, sink: Option<&str>, shared: &mut Shared, now: Mono) {
        self.due = Mono::NEVER;
        let (Some(sink), Some((balancer, _))) = (sink, self.seen) else { return };
        let sink: SinkId = shared.views.sink(sink, balancer);
        for (id, refused) in &self.refused {
            shared.views.set(sink, *id, ViewState::Refused, Some(&refused.to_string()));
        }
        for row in self.pool.rows(now) {
            self.due = row.ejected_for.map_or(self.due, |left| self.due.min(now.after(left)));
            let up = shared.members.get(balancer, row.id).map(|member| (member.state(), member.weight()));
            let (state, error) = match up {
                None => continue,
                Some((State::Up, 0)) => (ViewState::Draining, None),
                Some((State::Up, _)) if row.ejected_for.is_some() => {
                    (ViewState::Down, Some("connections to it failed"))
                }
                Some((State::Up, _)) => (ViewState::Up, None),
                Some(_) if row.open > 0 => (ViewState::Draining, None),
                Some(_) => (ViewState::Down, None),
            };
            shared.views.set(sink, row.id, state, error);
        }
    }
}

/// The address that a member's url leads to.
fn reach(url: &[u8]) -> Result<SocketAddr, Refused> {
    // The table holds what admission passed, so it parses.
    Url::parse(url).map_err(|_| Refused::HostName).and_then(|url| address(&url))
}

#[cfg(test)]
mod tests {
    use super::super::balance::Balance;
    use super::*;
    use crate::members::{Announce, Policy, WhenDeaf};

    fn now(seconds: u64) -> Now {
        Now { mono: Mono(seconds * 1_000_000), unix_us: 0 }
    }

    #[test]
    fn what_is_shown_ends_when_the_member_is_back() {
        let mut shared = Shared::new([1, 2], Mono::ZERO);
        let policy = Policy {
            max_members: 9,
            forget: Duration::ZERO,
            keep_last: false,
            when_deaf: WhenDeaf::Hold,
            timeout: Duration::ZERO,
            max_skew: Duration::ZERO,
        };
        let balancer = shared.members.balancer("web", policy, Mono::ZERO);
        let announce = |shared: &mut Shared, ts: i64, at: Now| {
            for url in ["http://10.0.0.1:80", "http://10.0.0.2:80"] {
                let announce = Announce { url: url.as_bytes(), ts, ..Announce::default() };
                let _ = shared.members.announce(balancer, &announce, at.mono);
            }
        };
        announce(&mut shared, 1, now(1));
        let config = Config { how: Balance::P2c, slow_start: Duration::ZERO };
        let mut pools = Pools::new("proxy:test".to_owned(), config);
        let pool = pools.of("web");
        pools.refresh(&mut shared, now(10));
        assert_eq!(pools.take_due(), Some(Mono::NEVER));
        let member = shared.members.lookup(balancer, b"http://10.0.0.1:80").unwrap();
        let state = |shared: &Shared| shared.views.of(balancer, member).next().unwrap().1.state;
        for _ in 0..3 {
            pools.failed((pool, member), &mut shared, now(10));
        }
        assert_eq!((state(&shared), pools.take_due()), (ViewState::Down, Some(now(15).mono)));
        assert_eq!(pools.take_due(), None, "nothing has changed");
        // It is heard: half of what is left is enough, and whoever picks next sees to that.
        announce(&mut shared, 2, now(11));
        pools.pick(pool, &[], &[], &mut shared, now(11), 7).unwrap();
        assert_eq!((state(&shared), pools.take_due()), (ViewState::Down, Some(now(13).mono)));
        pools.show(&mut shared, now(13).mono);
        assert_eq!((state(&shared), pools.take_due()), (ViewState::Up, Some(Mono::NEVER)));
    }
}
