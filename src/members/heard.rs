//! What goes into the table with a message, and what comes out. Plain values, no decisions.

use super::MemberId;
use crate::stats::Counter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Who brings members into a balancer: one running receiver, or one that follows a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Writer(u32);

impl Writer {
    /// Nobody that runs: what the state file brought, and what a writer left behind when it ended.
    pub const NOBODY: Writer = Writer(0);

    /// The `n`th of all that ever ran.
    #[must_use]
    pub fn new(n: u32) -> Writer {
        Writer(n)
    }
}

/// One announcement that is verified, fresh and admitted.
#[derive(Clone, Copy, Debug)]
pub struct Announce<'a> {
    /// The url, as admission shaped it.
    pub url: &'a [u8],
    /// Its timestamp, microseconds since the Unix epoch.
    pub ts: i64,
    /// Whether the timestamp can be trusted and must be newer than the last. Without, it leaves no mark either.
    pub replay_check: bool,
    /// Its listener's timeout; zero for never.
    pub timeout: Duration,
    /// The announced interval.
    pub every: Option<Duration>,
    /// The announced weight.
    pub weight: u16,
    /// Where the datagram came from.
    pub from: SocketAddr,
    /// The announced host name, untrusted bytes.
    pub host: &'a [u8],
    /// The announced process id.
    pub pid: u32,
    /// Which of the listener's keys signed it.
    pub key: u16,
    /// Whom it came to.
    pub writer: Writer,
}

impl Default for Announce<'_> {
    /// No url, timestamp 0, checked for replay, never evicted, weight 1, from nowhere, to nobody.
    fn default() -> Self {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Announce {
            url: b"",
            ts: 0,
            replay_check: true,
            timeout: Duration::ZERO,
            every: None,
            weight: 1,
            from,
            host: b"",
            pid: 0,
            key: 0,
            writer: Writer::NOBODY,
        }
    }
}

/// What a message did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A new member, up.
    Added(MemberId, Facts),
    /// A member that was up already.
    Refreshed(MemberId, Facts),
    /// A member that had been evicted or had left is up again.
    Revived(MemberId, Facts),
    /// A member said goodbye.
    Left(MemberId),
    /// Nothing.
    Dropped(Reason),
    /// Valid, but nothing follows: a goodbye of a url that is unknown or not up, or a balancer that is gone.
    Ignored,
}

/// What is worth a line in the log beside the outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The weight is another; it was this.
    pub reweighted: Option<u16>,
    /// Another source announces this url too; that one. Told once for a member.
    pub second_source: Option<IpAddr>,
    /// The announced interval is longer than a third of the timeout. Told once for a balancer and policy.
    pub slow: bool,
    /// The table was full: whoever had been dead the longest was forgotten to make room.
    pub made_room: bool,
}

impl Facts {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reweighted.is_none() && self.second_source.is_none() && !self.slow && !self.made_room
    }
}

/// Why the table turned a message away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The timestamp is not newer than the url's mark.
    ReplayedTs,
    /// An unknown url, no place left, and nobody dead for long enough to yield.
    TableFull,
}

impl Reason {
    /// The reason as the reference's log has it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Reason::ReplayedTs => "replayed/reordered ts",
            Reason::TableFull => "member table full",
        }
    }

    /// What counts it.
    #[must_use]
    pub fn counter(self) -> Counter {
        match self {
            Reason::ReplayedTs => Counter::BeaconDropReplayedTs,
            Reason::TableFull => Counter::BeaconDropTableFull,
        }
    }
}
