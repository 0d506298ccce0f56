//! What the demo may believe: a status report read for single facts, answers to requests counted, and whether they
//! are what a step promises. Decides on text and numbers; asks nobody, waits for nothing.

use std::fmt;

/// Requests that make a round.
const ROUND: usize = 12;

/// A status report as JSON, as `beacond status --json` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(pub &'a str);

impl<'a> Table<'a> {
    /// The state of the member at `url`; `None` if the table does not know it.
    #[must_use]
    pub fn state(self, url: &str) -> Option<&'a str> {
        // Within a JSON string no quote stands alone, so this can match a member only.
        self.behind(&format!("{{\"url\":\"{url}\",\"state\":\""))?.split('"').next()
    }

    /// The value of a counter; 0 if there is none of that name.
    #[must_use]
    pub fn counter(self, name: &str) -> u64 {
        let digits =
            self.behind(&format!("\"{name}\":")).map(|rest| rest.split(|c: char| !c.is_ascii_digit()));
        digits.and_then(|mut pieces| pieces.next()?.parse().ok()).unwrap_or(0)
    }

    fn behind(self, mark: &str) -> Option<&'a str> {
        self.0.split_once(mark).map(|(_, rest)| rest)
    }
}

/// Who answered how many requests.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Sorted by name.
    answers: Vec<(String, usize)>,
    failed: usize,
    first_failure: Option<String>,
}

impl Tally {
    /// Counts the outcome of one request: who answered, or why nobody did.
    pub fn note(&mut self, outcome: Result<String, String>) {
        match outcome {
            Ok(name) => match self.answers.binary_search_by(|(known, _)| known.cmp(&name)) {
                Ok(at) => self.answers[at].1 += 1,
                Err(at) => self.answers.insert(at, (name, 1)),
            },
            Err(why) => {
                self.failed += 1;
                self.first_failure.get_or_insert(why);
            }
        }
    }

    /// Whether more requests would not change the verdict: a whole round answered by all of `wanted`, or already
    /// something that must not be.
    #[must_use]
    pub fn is_decided(&self, wanted: &[&str]) -> bool {
        let complete = self.total() >= ROUND && self.missing(wanted).is_none();
        complete || self.failed > 0 || self.unwanted(wanted).is_some()
    }

    /// Whether all of `wanted` answered, nobody else did, and no request failed.
    ///
    /// # Errors
    /// What was seen instead.
    pub fn judge(&self, wanted: &[&str]) -> Result<(), String> {
        if let Some(why) = &self.first_failure {
            return Err(format!("{self} ({why})"));
        }
        if let Some(name) = self.unwanted(wanted) {
            return Err(format!("{self}: {name} must not answer"));
        }
        match self.missing(wanted) {
            Some(name) => Err(format!("{self}: {name} never answered")),
            None => Ok(()),
        }
    }

    fn total(&self) -> usize {
        self.answers.iter().map(|(_, count)| count).sum::<usize>() + self.failed
    }

    fn unwanted(&self, wanted: &[&str]) -> Option<&str> {
        self.answers.iter().map(|(name, _)| name.as_str()).find(|name| !wanted.contains(name))
    }

    fn missing<'a>(&self, wanted: &[&'a str]) -> Option<&'a str> {
        wanted.iter().copied().find(|name| !self.answers.iter().any(|(known, _)| known == name))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(f, "{total} request{}: ", if total == 1 { "" } else { "s" })?;
        for (name, count) in &self.answers {
            write!(f, "{count}x {name}, ")?;
        }
        write!(f, "{} failed", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Report;
    use crate::clock::Mono;
    use crate::shared::Shared;
    use crate::stats::Counter;

    fn tally(names: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for name in names {
            tally.note(Ok((*name).to_owned()));
        }
        tally
    }

    #[test]
    fn counters_are_read_from_a_real_report() {
        let mut shared = Shared::new([1, 2], Mono(5));
        for _ in 0..12 {
            shared.stats.add(Counter::BeaconDropMacMismatch);
        }
        let report = Report::new(&shared, Mono(9)).json();
        let table = Table(&report);
        assert_eq!(table.counter("beacon.drop.mac_mismatch"), 12);
        assert_eq!(table.counter("beacon.drop.no_mac"), 0);
        assert_eq!(table.counter("drop.mac_mismatch"), 0);
        assert_eq!(table.state("http://127.0.0.1:1"), None);
    }

    #[test]
    fn a_members_state_and_nothing_like_it() {
        let table = Table(
            r#"{"balancers":{"default":{"members":[{"url":"http://127.1.2.3:80","state":"down","weight":1,
            "host":"{\"url\":\"http://127.1.2.3:8\",\"state\":\"up\""},{"url":"http://127.1.2.3:81","state":"up"}]}}}"#,
        );
        assert_eq!(table.state("http://127.1.2.3:80"), Some("down"));
        assert_eq!(table.state("http://127.1.2.3:81"), Some("up"));
        assert_eq!(table.state("http://127.1.2.3:8"), None);
        assert_eq!(Table("").state("http://127.1.2.3:8"), None);
        assert_eq!(Table(r#"{"a":"#).counter("a"), 0);
    }

    #[test]
    fn a_round_is_whole_when_everybody_answered() {
        let mut tally = tally(&["web3"; 12]);
        assert!(tally.is_decided(&["web3"]) && tally.judge(&["web3"]).is_ok());
        assert!(!tally.is_decided(&["web1", "web3"]));
        let seen = tally.judge(&["web1", "web3"]).unwrap_err();
        assert_eq!(seen, "12 requests: 12x web3, 0 failed: web1 never answered");
        tally.note(Ok("web1".to_owned()));
        assert!(tally.is_decided(&["web1", "web3"]) && tally.judge(&["web1", "web3"]).is_ok());
        assert_eq!(tally.to_string(), "13 requests: 1x web1, 12x web3, 0 failed");
    }

    #[test]
    fn an_answer_that_must_not_be_decides_at_once() {
        let tally = tally(&["web1", "rogue"]);
        assert!(tally.is_decided(&["web1"]) && !tally.is_decided(&["web1", "rogue"]));
        let seen = tally.judge(&["web1"]).unwrap_err();
        assert_eq!(seen, "2 requests: 1x rogue, 1x web1, 0 failed: rogue must not answer");
    }

    #[test]
    fn a_failed_request_decides_at_once_and_says_why() {
        let mut tally = tally(&["web1"; 20]);
        tally.note(Err("connection refused".to_owned()));
        tally.note(Err("timed out".to_owned()));
        assert!(tally.is_decided(&["web1"]));
        let seen = tally.judge(&["web1"]).unwrap_err();
        assert_eq!(seen, "22 requests: 20x web1, 2 failed (connection refused)");
        assert!(!Tally::default().is_decided(&[]) && Tally::default().judge(&["web1"]).is_err());
    }
}
