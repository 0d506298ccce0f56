//! Beacons: signed datagrams by which backends announce themselves to a load balancer, as Apache httpd's
//! mod_proxy_beacon defined them.

#[cfg(feature = "announce")]
pub mod announce;
#[cfg(feature = "announce")]
pub mod health;
#[cfg(feature = "listen")]
pub mod listen;
//! The beacon protocol: backends announce themselves to a balancer by small signed datagrams.
//!
//! It follows the reference implementation, `mod_proxy_beacon` of Apache httpd, byte for byte; our own additions are
//! fields which that module ignores. [`wire`] reads and writes the text, [`auth`] signs and verifies it, [`admission`]
//! says which urls may become members, [`member_keys`] ties a key to one url, and [`gate`] puts these in order: a
//! datagram in, a verified statement or a [`Reason`] out. None of them touches a socket, a clock or the member table.

pub mod admission;
pub mod auth;
pub mod gate;
pub mod member_keys;
pub mod wire;

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

    /// The name of its counter.
    #[must_use]
    pub fn counter(self) -> &'static str {
        self.words().1
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Reason::Empty => ("empty", "beacon.drop.empty"),
            Reason::NoMac => ("no mac", "beacon.drop.no_mac"),
            Reason::BadMacLength => ("bad mac length", "beacon.drop.bad_mac_length"),
            Reason::MacMismatch => ("mac mismatch", "beacon.drop.mac_mismatch"),
            Reason::NoTs => ("no ts", "beacon.drop.no_ts"),
            Reason::StaleTimestamp => ("stale timestamp", "beacon.drop.stale_timestamp"),
            Reason::BadUrl => ("bad url", "beacon.drop.bad_url"),
            Reason::WrongBalancer => ("wrong balancer", "beacon.drop.wrong_balancer"),
            Reason::Replayed => ("replayed/reordered ts", "beacon.drop.replayed"),
            Reason::TableFull => ("member table full", "beacon.drop.table_full"),
            Reason::KeyBudget => ("too many unknown urls", "beacon.drop.key_budget"),
        }
    }
}
