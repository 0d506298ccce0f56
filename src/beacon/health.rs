//! The health gate of `announce`: what is checked, and what it takes to open or close the gate. Pure; the checks
//! themselves are run by `probe`.
//!
//! As in HAProxy, `rise` successes in a row open the gate and `fall` failures in a row close it. Unlike HAProxy's
//! servers it starts closed: with a check configured nothing is announced before the backend has proved itself.

use crate::config::values::{self, HostPort};
use crate::http1::HttpUrl;
use std::fmt;
use std::time::Duration;

/// What one check does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Check {
    /// `tcp:HOST:PORT`: healthy when a connection is accepted.
    Tcp {
        /// Name or address, an IPv6 address without its brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `http://HOST/PATH`: healthy when a GET is answered with a status from 200 to 399. Redirects are not followed.
    Http(HttpUrl),
    /// `exec:COMMAND`: healthy when the program, run without a shell, exits with status 0.
    Exec(Vec<String>),
}

impl Check {
    /// Reads the option's value.
    ///
    /// # Errors
    /// What is wanted.
    pub fn parse(text: &str) -> Result<Check, String> {
        match text.split_once(':') {
            Some(("tcp", address)) => match values::addr(address)? {
                HostPort { host: Some(host), port: Some(port @ 1..) } => Ok(Check::Tcp { host, port }),
                _ => Err("tcp:HOST:PORT such as tcp:127.0.0.1:8080".to_owned()),
            },
            // Plain `http://host/path` or `http:http://host/path`; the url says itself that it takes no `https`.
            Some(("http", url)) if !url.starts_with("//") => Ok(Check::Http(HttpUrl::parse(url)?)),
            Some(("http" | "https", _)) => Ok(Check::Http(HttpUrl::parse(text)?)),
            Some(("exec", command)) => values::command(command).map(Check::Exec),
            _ => Err("tcp:HOST:PORT, http://HOST/PATH or exec:COMMAND".to_owned()),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Check::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
            Check::Http(url) => url.fmt(f),
            Check::Exec(argv) => write!(f, "exec:{}", argv.first().map_or("", String::as_str)),
        }
    }
}

/// How a backend is checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthConfig {
    /// What a check does.
    pub check: Check,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// A check that takes longer has failed.
    pub timeout: Duration,
    /// Successes in a row that open the gate, at least 1.
    pub rise: usize,
    /// Failures in a row that close it, at least 1.
    pub fall: usize,
}

/// What one check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The backend answers.
    Healthy,
    /// It does not: why, in a few words for the log.
    Unhealthy(String),
}

/// What a check changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Start to announce.
    Opened,
    /// Stop announcing.
    Closed,
}

/// Counts successes and failures in a row.
#[derive(Clone, Debug)]
pub struct Gate {
    rise: usize,
    fall: usize,
    open: bool,
    /// Results in a row that contradict the present state.
    streak: usize,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new(rise: usize, fall: usize) -> Gate {
        Gate { rise, fall, open: false, streak: 0 }
    }

    /// Counts one result.
    pub fn note(&mut self, healthy: bool) -> Option<Change> {
        if healthy == self.open {
            self.streak = 0;
            return None;
        }
        self.streak += 1;
        let wanted = if healthy { self.rise } else { self.fall };
        if self.streak < wanted {
            return None;
        }
        self.streak = 0;
        self.open = healthy;
        Some(if healthy { Change::Opened } else { Change::Closed })
    }

    /// Whether to announce.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Keeps the state of the gate this one replaces, with the limits of this one: a reload is no reason to go away.
    pub fn inherit(&mut self, old: &Gate) {
        self.open = old.open;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_of_checks() {
        for (text, shown) in [
            ("tcp:127.0.0.1:8080", "tcp:127.0.0.1:8080"),
            ("tcp:[::1]:80", "tcp:[::1]:80"),
            ("tcp:web.local:80", "tcp:web.local:80"),
            ("http:http://127.0.0.1:8080/up", "http://127.0.0.1:8080/up"),
            ("http://[::1]/up?x", "http://[::1]/up?x"),
            ("exec:/bin/check -q", "exec:/bin/check"),
        ] {
            assert_eq!(Check::parse(text).map(|c| c.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in [
            "",
            "tcp",
            "tcp:",
            "tcp:a",
            "tcp:a:",
            "tcp:a:0",
            "tcp:a:99999",
            "tcp:a:80/",
            "tcp::80",
            "tcp:::1:80",
            "http:",
            "http:/x",
            "http:https://a/",
            "https://a/",
            "http:a:80",
            "exec:",
            "exec: ",
            "udp:a:1",
        ] {
            assert!(Check::parse(text).is_err(), "{text}");
        }
        assert!(Check::parse("https://a/").unwrap_err().ends_with("TLS is not spoken here"));
    }

    #[test]
    fn closed_until_it_has_risen_and_open_until_it_has_fallen() {
        let mut gate = Gate::new(2, 3);
        let changes: Vec<_> = "+-++--+---+-++".chars().map(|c| gate.note(c == '+')).collect();
        let mut expected = vec![None; 14];
        (expected[3], expected[9], expected[13]) =
            (Some(Change::Opened), Some(Change::Closed), Some(Change::Opened));
        assert_eq!(changes, expected);
        let mut next = Gate::new(1, 1);
        next.inherit(&gate);
        assert!(next.is_open());
        assert_eq!(next.note(false), Some(Change::Closed));
    }

    proptest! {
        /// The state is that of the last run of equal results long enough to count.
        #[test]
        fn the_last_long_run_decides(results in prop::collection::vec(any::<bool>(), 0..60), rise in 1..4usize, fall in 1..4usize) {
            let mut gate = Gate::new(rise, fall);
            let mut open = false;
            for end in 1..=results.len() {
                let last = results[end - 1];
                let run = results[..end].iter().rev().take_while(|&&r| r == last).count();
                let before = open;
                if run >= if last { rise } else { fall } {
                    open = last;
                }
                prop_assert_eq!(gate.note(last).is_some(), before != open);
                prop_assert_eq!(gate.is_open(), open);
            }
        }
    }
}
