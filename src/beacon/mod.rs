//! The beacon protocol: backends announce themselves to a balancer by small signed datagrams.
//!
//! It follows the reference implementation, `mod_proxy_beacon` of Apache httpd, byte for byte; our own additions are
//! fields which that module ignores. [`wire`] reads and writes the text, [`auth`] signs and verifies it, [`admission`]
//! says which urls may become members, [`member_keys`] ties a key to one url, and [`gate`] puts these in order: a
//! datagram in, a verified statement or a [`Reason`] out. None of them touches a socket, a clock or the member table.

pub mod admission;
#[cfg(feature = "announce")]
pub mod announce;
pub mod auth;
pub mod gate;
#[cfg(feature = "announce")]
pub mod health;
#[cfg(feature = "listen")]
pub mod listen;
pub mod member_keys;
#[cfg(feature = "announce")]
pub mod probe;
mod scan;
pub mod settings;
pub mod wire;

use crate::stats::Counter;

/// Why a datagram was dropped. Each reason has the reference's text, where it has one, and a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// No bytes at all. The reference ignores such a datagram without a word.
    Empty,
    /// No ` mac=` in the text.
    NoMac,
    /// The last ` mac=` is not followed by exactly 16 bytes and the end.
    BadMacLength,
    /// No key that we hold makes this MAC.
    MacMismatch,
    /// Authentic, but without a `ts=` token.
    NoTs,
    /// Authentic, but too old or too far ahead.
    StaleTimestamp,
    /// The url cannot become a member, or one datagram both announces and says goodbye.
    BadUrl,
    /// `to=` names another balancer.
    WrongBalancer,
    /// Not newer than the last one accepted from this member.
    Replayed,
    /// An unknown url, and no room for it.
    TableFull,
    /// An unknown url while the budget for deriving member keys is spent.
    KeyBudget,
}

impl Reason {
    /// Every reason, in the order in which they are tested.
    pub const ALL: [Reason; 11] = [
        Reason::Empty,
        Reason::NoMac,
        Reason::BadMacLength,
        Reason::MacMismatch,
        Reason::NoTs,
        Reason::StaleTimestamp,
        Reason::WrongBalancer,
        Reason::BadUrl,
        Reason::KeyBudget,
        Reason::TableFull,
        Reason::Replayed,
    ];

    /// The words for logs and for `beacond decode`.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.words().0
    }

    /// Its counter.
    #[must_use]
    pub fn counter(self) -> Counter {
        self.words().1
    }

    fn words(self) -> (&'static str, Counter) {
        match self {
            Reason::Empty => ("empty", Counter::BeaconDropEmpty),
            Reason::NoMac => ("no mac", Counter::BeaconDropNoMac),
            Reason::BadMacLength => ("bad mac length", Counter::BeaconDropBadMacLength),
            Reason::MacMismatch => ("mac mismatch", Counter::BeaconDropMacMismatch),
            Reason::NoTs => ("no ts", Counter::BeaconDropNoTs),
            Reason::StaleTimestamp => ("stale timestamp", Counter::BeaconDropStaleTimestamp),
            Reason::BadUrl => ("bad url", Counter::BeaconDropBadUrl),
            Reason::WrongBalancer => ("wrong balancer", Counter::BeaconDropWrongBalancer),
            Reason::Replayed => ("replayed/reordered ts", Counter::BeaconDropReplayedTs),
            Reason::TableFull => ("member table full", Counter::BeaconDropTableFull),
            Reason::KeyBudget => ("too many unknown urls", Counter::BeaconDropKeyBudget),
        }
    }
}
