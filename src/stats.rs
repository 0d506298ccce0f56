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
    /// Connections that a proxy accepted.
    ProxyAccepted,
    /// Accept calls that failed: out of descriptors or memory.
    ProxyAcceptError,
    /// Connections tried again with another member or address.
    ProxyRetry,
    /// Members taken out for a while after failed connections.
    ProxyEjected,
    /// Bytes from clients that servers took.
    ProxyBytesIn,
    /// Bytes from servers that clients took.
    ProxyBytesOut,
    /// Sessions ended: both streams ended and every byte was passed on.
    ProxyEndDone,
    /// Sessions ended: no byte moved for `--idle-timeout`.
    ProxyEndIdle,
    /// Sessions ended: one side had ended its stream, and the other kept silent for `--half-close-timeout`.
    ProxyEndHalfIdle,
    /// Sessions ended: the client reset its connection.
    ProxyEndClientReset,
    /// Sessions ended: the server reset its connection.
    ProxyEndServerReset,
    /// Sessions ended: the client went away before it was connected to anything.
    ProxyEndClientGone,
    /// Sessions ended: the first flight was not whole within `--hello-timeout`.
    ProxyEndHelloTimeout,
    /// Sessions ended: it was the oldest of too many first flights (`--max-hello`).
    ProxyEndHelloLimit,
    /// Sessions ended: the PROXY header is none.
    ProxyEndBadHeader,
    /// Sessions ended: it begins as TLS, but the ClientHello cannot be routed by.
    ProxyEndBadHello,
    /// Sessions ended: the ClientHello is longer than `--hello-size`.
    ProxyEndTooLong,
    /// Sessions ended: it is no TLS, and `--require-sni` wants a server name.
    ProxyEndNotTls,
    /// Sessions ended: it names no server, and `--require-sni` wants that.
    ProxyEndNoSni,
    /// Sessions ended: no route matches.
    ProxyEndNoRoute,
    /// Sessions ended: the route says `reject`.
    ProxyEndRejected,
    /// Sessions ended: `--deny` or `--allow` keeps the client out.
    ProxyEndDenied,
    /// Sessions ended: the program behind `--auth` said no.
    ProxyEndAuthDenied,
    /// Sessions ended: the program behind `--auth` did not answer, or not as it must.
    ProxyEndAuthFailed,
    /// Sessions ended: the client has too many sessions (`--max-sessions-per-source`).
    ProxyEndSourceLimit,
    /// Sessions ended: the balancer has no member that takes sessions.
    ProxyEndNoMember,
    /// Sessions ended: a CONNECT needs a host, and the client named none.
    ProxyEndNoHost,
    /// Sessions ended: the target's name has no address.
    ProxyEndResolveFailed,
    /// Sessions ended: every try to connect failed.
    ProxyEndConnectFailed,
    /// Sessions ended: no try to connect had come to an end within `--connect-deadline`.
    ProxyEndConnectTimeout,
    /// Sessions ended: the upstream proxy answered the CONNECT with another status than 200.
    ProxyEndUpstreamRefused,
    /// Sessions ended: the upstream proxy's answer is none.
    ProxyEndUpstreamBad,
    /// Sessions ended: its member went down (`--on-evict`).
    ProxyEndEvicted,
    /// Sessions ended: its member said goodbye (`--on-leave`).
    ProxyEndLeft,
    /// Sessions ended: the program ended, or the section was removed, before the session did.
    ProxyEndDrained,
}

impl Counter {
    /// Every counter with its name, in the order of declaration.
    pub const ALL: [(Counter, &'static str); 59] = [
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
        (Counter::ProxyAccepted, "proxy.accepted"),
        (Counter::ProxyAcceptError, "proxy.accept_error"),
        (Counter::ProxyRetry, "proxy.retry"),
        (Counter::ProxyEjected, "proxy.ejected"),
        (Counter::ProxyBytesIn, "proxy.bytes_in"),
        (Counter::ProxyBytesOut, "proxy.bytes_out"),
        (Counter::ProxyEndDone, "proxy.end.done"),
        (Counter::ProxyEndIdle, "proxy.end.idle"),
        (Counter::ProxyEndHalfIdle, "proxy.end.half_idle"),
        (Counter::ProxyEndClientReset, "proxy.end.client_reset"),
        (Counter::ProxyEndServerReset, "proxy.end.server_reset"),
        (Counter::ProxyEndClientGone, "proxy.end.client_gone"),
        (Counter::ProxyEndHelloTimeout, "proxy.end.hello_timeout"),
        (Counter::ProxyEndHelloLimit, "proxy.end.hello_limit"),
        (Counter::ProxyEndBadHeader, "proxy.end.bad_header"),
        (Counter::ProxyEndBadHello, "proxy.end.bad_hello"),
        (Counter::ProxyEndTooLong, "proxy.end.too_long"),
        (Counter::ProxyEndNotTls, "proxy.end.not_tls"),
        (Counter::ProxyEndNoSni, "proxy.end.no_sni"),
        (Counter::ProxyEndNoRoute, "proxy.end.no_route"),
        (Counter::ProxyEndRejected, "proxy.end.rejected"),
        (Counter::ProxyEndDenied, "proxy.end.denied"),
        (Counter::ProxyEndAuthDenied, "proxy.end.auth_denied"),
        (Counter::ProxyEndAuthFailed, "proxy.end.auth_failed"),
        (Counter::ProxyEndSourceLimit, "proxy.end.source_limit"),
        (Counter::ProxyEndNoMember, "proxy.end.no_member"),
        (Counter::ProxyEndNoHost, "proxy.end.no_host"),
        (Counter::ProxyEndResolveFailed, "proxy.end.resolve_failed"),
        (Counter::ProxyEndConnectFailed, "proxy.end.connect_failed"),
        (Counter::ProxyEndConnectTimeout, "proxy.end.connect_timeout"),
        (Counter::ProxyEndUpstreamRefused, "proxy.end.upstream_refused"),
        (Counter::ProxyEndUpstreamBad, "proxy.end.upstream_bad"),
        (Counter::ProxyEndEvicted, "proxy.end.evicted"),
        (Counter::ProxyEndLeft, "proxy.end.left"),
        (Counter::ProxyEndDrained, "proxy.end.drained"),
    ];

    /// The dotted name, as `beacon.drop.mac_mismatch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Counter::ALL[self as usize].1
    }
}

/// The values of all counters.
#[derive(Clone, Debug)]
pub struct Stats {
    counts: [u64; Counter::ALL.len()],
}

impl Default for Stats {
    fn default() -> Stats {
        Stats { counts: [0; Counter::ALL.len()] }
    }
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
