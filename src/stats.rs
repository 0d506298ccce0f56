//! Counters of everything that happened, by name. Plain additions into an array; nothing here renders, logs or
//! reads a clock.
//!
//! A counter is one variant of [`Counter`] and one row of [`Counter::ALL`]: its dotted name is what `status --json`
//! and the metrics show, so a name once published stays.

/// Something that is counted since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counter {
    /// Datagrams that reached a listener, whatever became of them.
    BeaconReceived,
    /// Announcements that were valid and refreshed, added or revived a member.
    BeaconAccepted,
    /// Valid announcements without a url: a sign of life of a host, not of a member.
    BeaconHeartbeat,
    /// Valid goodbyes.
    BeaconLeave,
    /// Dropped: an empty datagram.
    BeaconDropEmpty,
    /// Dropped: no `mac=` field.
    BeaconDropNoMac,
    /// Dropped: the MAC is not 16 characters, or not at the very end.
    BeaconDropBadMacLength,
    /// Dropped: signed with another secret, altered, or forged.
    BeaconDropMacMismatch,
    /// Dropped: no `ts=` field.
    BeaconDropNoTs,
    /// Dropped: the timestamp is too far from our clock.
    BeaconDropStaleTimestamp,
    /// Dropped: the url did not pass admission.
    BeaconDropBadUrl,
    /// Dropped: addressed to another balancer.
    BeaconDropWrongBalancer,
    /// Dropped: the timestamp is not newer than the last accepted one.
    BeaconDropReplayedTs,
    /// Dropped: the table has no place for another member.
    BeaconDropTableFull,
    /// Dropped: an unknown url while the budget for deriving member keys is spent.
    BeaconDropKeyBudget,
    /// Receive calls that failed: an ICMP error, or the kernel short of memory.
    BeaconReceiveError,
    /// Members added.
    MemberAdded,
    /// Members that came back after an eviction or a goodbye.
    MemberRevived,
    /// Members evicted after silence.
    MemberEvicted,
    /// Members that said goodbye.
    MemberLeft,
    /// Dead members forgotten.
    MemberForgotten,
    /// Times a balancer was found deaf.
    MemberDeaf,
    /// Times a deaf balancer heard again.
    MemberHearsAgain,
    /// Times the last member up was spared.
    MemberKeptLast,
}

impl Counter {
    /// Every counter with its name, in the order of declaration.
    pub const ALL: [(Counter, &'static str); 24] = [
        (Counter::BeaconReceived, "beacon.received"),
        (Counter::BeaconAccepted, "beacon.accepted"),
        (Counter::BeaconHeartbeat, "beacon.heartbeat"),
        (Counter::BeaconLeave, "beacon.leave"),
        (Counter::BeaconDropEmpty, "beacon.drop.empty"),
        (Counter::BeaconDropNoMac, "beacon.drop.no_mac"),
        (Counter::BeaconDropBadMacLength, "beacon.drop.bad_mac_length"),
        (Counter::BeaconDropMacMismatch, "beacon.drop.mac_mismatch"),
        (Counter::BeaconDropNoTs, "beacon.drop.no_ts"),
        (Counter::BeaconDropStaleTimestamp, "beacon.drop.stale_timestamp"),
        (Counter::BeaconDropBadUrl, "beacon.drop.bad_url"),
        (Counter::BeaconDropWrongBalancer, "beacon.drop.wrong_balancer"),
        (Counter::BeaconDropReplayedTs, "beacon.drop.replayed_ts"),
        (Counter::BeaconDropTableFull, "beacon.drop.table_full"),
        (Counter::BeaconDropKeyBudget, "beacon.drop.key_budget"),
        (Counter::BeaconReceiveError, "beacon.receive_error"),
        (Counter::MemberAdded, "member.added"),
        (Counter::MemberRevived, "member.revived"),
        (Counter::MemberEvicted, "member.evicted"),
        (Counter::MemberLeft, "member.left"),
        (Counter::MemberForgotten, "member.forgotten"),
        (Counter::MemberDeaf, "member.deaf"),
        (Counter::MemberHearsAgain, "member.hears_again"),
        (Counter::MemberKeptLast, "member.kept_last"),
    ];

    /// The dotted name, as `beacon.drop.mac_mismatch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Counter::ALL[self as usize].1
    }
}

/// The values of all counters.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    counts: [u64; Counter::ALL.len()],
}

impl Stats {
    /// All counters at zero.
    #[must_use]
    pub fn new() -> Stats {
        Stats::default()
    }

    /// Counts one.
    pub fn add(&mut self, counter: Counter) {
        self.add_many(counter, 1);
    }

    /// Counts `n` at once. A counter stops at its largest value rather than start again.
    pub fn add_many(&mut self, counter: Counter, n: u64) {
        let count = &mut self.counts[counter as usize];
        *count = count.saturating_add(n);
    }

    /// The present value of one counter.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// All names and values, in the order of declaration, zeros included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|(counter, name)| (*name, self.get(*counter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_stands_at_its_counter_s_place() {
        for (place, (counter, name)) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place, "{name}");
            assert_eq!(counter.name(), name);
        }
    }

    #[test]
    fn names_are_unique_dotted_words() {
        let names: BTreeSet<_> = Counter::ALL.iter().map(|row| row.1).collect();
        assert_eq!(names.len(), Counter::ALL.len());
        for name in names {
            assert!(name.contains('.'), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_'), "{name}");
        }
    }

    #[test]
    fn counts_and_saturates() {
        let mut stats = Stats::new();
        stats.add(Counter::MemberAdded);
        stats.add_many(Counter::MemberAdded, 2);
        stats.add_many(Counter::MemberLeft, u64::MAX);
        stats.add(Counter::MemberLeft);
        assert_eq!(stats.get(Counter::MemberAdded), 3);
        let shown: Vec<_> = stats.iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(shown, [("member.added", 3), ("member.left", u64::MAX)]);
    }
}
