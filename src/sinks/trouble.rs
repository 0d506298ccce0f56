//! A balancer that does not answer, or not as it should: said once, asked ever more rarely, and glad to be rid of. And
//! the lines that a sink's machine has for the log. Pure.

use super::back_off;
use std::time::Duration;

/// One line for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Something is wrong; otherwise something has changed.
    pub warn: bool,
    /// Without the sink's name.
    pub text: String,
}

/// Whether a balancer is in trouble, and for how long it has been.
#[derive(Debug, Default)]
pub struct Trouble {
    now: Option<(String, u32)>,
}

impl Trouble {
    /// It has failed (again): how long to leave it alone, and a line for the log unless that says nothing new.
    pub fn failed(&mut self, why: &str, random: u64) -> (Duration, Option<News>) {
        let (new, repeats) = match &self.now {
            Some((text, repeats)) => (text != why, repeats.saturating_add(1)),
            None => (true, 0),
        };
        self.now = Some((why.to_owned(), repeats));
        (back_off(repeats, random), new.then(|| News { warn: true, text: why.to_owned() }))
    }

    /// All is well. True if it was not.
    pub fn over(&mut self) -> bool {
        self.now.take().is_some()
    }

    /// What is wrong.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.now.as_ref().map(|(text, _)| text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_once_and_asked_ever_more_rarely() {
        let mut trouble = Trouble::default();
        assert!(!trouble.over());
        let pauses: Vec<u128> = (0..9).map(|_| trouble.failed("away", 0).0.as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
        assert_eq!(trouble.failed("away", 0).1, None);
        assert_eq!(trouble.failed("silent", 0).1, Some(News { warn: true, text: "silent".to_owned() }));
        assert_eq!(trouble.text(), Some("silent"));
        assert!(trouble.over() && trouble.text().is_none() && trouble.failed("silent", 0).1.is_some());
    }
}
