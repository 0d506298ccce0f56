//! How sessions end: a closed list, for the access log and the counters.

use crate::stats::Counter;
use std::fmt;

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both streams ended and every byte was passed on.
    Done,
    /// No byte moved for `--idle-timeout`.
    Idle,
    /// One side had ended its stream, and the other kept silent for `--half-close-timeout`.
    HalfIdle,
    /// The client reset its connection.
    ClientReset,
    /// The server reset its connection.
    ServerReset,
    /// The client went away before it was connected to anything.
    ClientGone,
    /// The first flight was not whole within `--hello-timeout`.
    HelloTimeout,
    /// It was the oldest of too many first flights (`--max-hello`).
    HelloLimit,
    /// The PROXY header is none.
    BadHeader,
    /// It begins as TLS, but the ClientHello cannot be routed by.
    BadHello,
    /// The ClientHello is longer than `--hello-size`.
    TooLong,
    /// It is no TLS, and `--require-sni` wants a server name.
    NotTls,
    /// It names no server, and `--require-sni` wants that.
    NoSni,
    /// No route matches.
    NoRoute,
    /// The route says `reject`.
    Rejected,
    /// `--deny` or `--allow` keeps the client out.
    Denied,
    /// The program behind `--auth` said no.
    AuthDenied,
    /// The program behind `--auth` did not answer, or not as it must.
    AuthFailed,
    /// The client has too many sessions (`--max-sessions-per-source`).
    SourceLimit,
    /// The balancer has no member that takes sessions.
    NoMember,
    /// A CONNECT needs a host, and the client named none.
    NoHost,
    /// The target's name has no address.
    ResolveFailed,
    /// Every try to connect failed.
    ConnectFailed,
    /// The last try to connect took longer than `--connect-timeout`, or all together than `--connect-deadline`.
    ConnectTimeout,
    /// The upstream proxy answered the CONNECT with another status than 200.
    UpstreamRefused,
    /// The upstream proxy's answer is none.
    UpstreamBad,
    /// Its member went down (`--on-evict`).
    Evicted,
    /// Its member said goodbye (`--on-leave`).
    Left,
    /// The program ended, or the section was removed, before the session did.
    Drained,
}

impl End {
    /// Every end, its word, and its counter.
    const ALL: [(End, &'static str, Counter); 29] = [
        (End::Done, "done", Counter::ProxyEndDone),
        (End::Idle, "idle", Counter::ProxyEndIdle),
        (End::HalfIdle, "half-idle", Counter::ProxyEndHalfIdle),
        (End::ClientReset, "client-reset", Counter::ProxyEndClientReset),
        (End::ServerReset, "server-reset", Counter::ProxyEndServerReset),
        (End::ClientGone, "client-gone", Counter::ProxyEndClientGone),
        (End::HelloTimeout, "hello-timeout", Counter::ProxyEndHelloTimeout),
        (End::HelloLimit, "hello-limit", Counter::ProxyEndHelloLimit),
        (End::BadHeader, "bad-header", Counter::ProxyEndBadHeader),
        (End::BadHello, "bad-hello", Counter::ProxyEndBadHello),
        (End::TooLong, "too-long", Counter::ProxyEndTooLong),
        (End::NotTls, "not-tls", Counter::ProxyEndNotTls),
        (End::NoSni, "no-sni", Counter::ProxyEndNoSni),
        (End::NoRoute, "no-route", Counter::ProxyEndNoRoute),
        (End::Rejected, "rejected", Counter::ProxyEndRejected),
        (End::Denied, "denied", Counter::ProxyEndDenied),
        (End::AuthDenied, "auth-denied", Counter::ProxyEndAuthDenied),
        (End::AuthFailed, "auth-failed", Counter::ProxyEndAuthFailed),
        (End::SourceLimit, "source-limit", Counter::ProxyEndSourceLimit),
        (End::NoMember, "no-member", Counter::ProxyEndNoMember),
        (End::NoHost, "no-host", Counter::ProxyEndNoHost),
        (End::ResolveFailed, "resolve-failed", Counter::ProxyEndResolveFailed),
        (End::ConnectFailed, "connect-failed", Counter::ProxyEndConnectFailed),
        (End::ConnectTimeout, "connect-timeout", Counter::ProxyEndConnectTimeout),
        (End::UpstreamRefused, "upstream-refused", Counter::ProxyEndUpstreamRefused),
        (End::UpstreamBad, "upstream-bad", Counter::ProxyEndUpstreamBad),
        (End::Evicted, "evicted", Counter::ProxyEndEvicted),
        (End::Left, "left", Counter::ProxyEndLeft),
        (End::Drained, "drained", Counter::ProxyEndDrained),
    ];

    /// The word in the access log.
    #[must_use]
    pub fn word(self) -> &'static str {
        End::ALL[self as usize].1
    }

    /// What is counted.
    #[must_use]
    pub fn counter(self) -> Counter {
        End::ALL[self as usize].2
    }

    /// Whether a session may end like this with nothing wrong on our side or our members'.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(self, End::Done | End::Idle | End::HalfIdle | End::ClientReset | End::ClientGone)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_stands_at_its_place_and_has_its_counter() {
        for (place, (end, word, counter)) in End::ALL.into_iter().enumerate() {
            assert_eq!(end as usize, place, "{word}");
            assert_eq!(counter.name(), format!("proxy.end.{}", word.replace('-', "_")));
        }
    }
}
