//! Answers that need not be asked for again.

use super::{Question, Verdict};
use crate::clock::Mono;
use crate::sorted::Sorted;
use std::time::Duration;

/// The most answers that a [`Cache`] holds.
pub const MAX_CACHED: usize = 1024;

/// Answers that hold for a time, for the next session of which the same would be asked: all of the question but its id
/// and the ports of client and peer. Failures are never put here.
#[derive(Debug)]
pub struct Cache<T> {
    time: Duration,
    answers: Sorted<Box<str>, Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    verdict: Verdict<T>,
    until: Mono,
}

impl<T> Cache<T> {
    /// An empty cache whose answers hold for `time`; with no time it stays empty.
    #[must_use]
    pub fn new(time: Duration) -> Cache<T> {
        Cache { time, answers: Sorted::default() }
    }

    /// Notes an answer to `question`. Where there is no room the oldest one goes.
    pub fn put(&mut self, question: &Question<'_>, verdict: Verdict<T>, now: Mono) {
        if self.time.is_zero() {
            return;
        }
        let key = question.line(None);
        // Long names are a client's way to make the cache big: whoever has such is asked about each time.
        if key.len() > MAX_KEY {
            return;
        }
        if self.answers.len() >= MAX_CACHED && !self.answers.contains_key(key.as_str()) {
            let oldest = self.answers.iter().min_by_key(|(_, held)| held.until).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.answers.remove(&key));
        }
        self.answers.insert(key.into(), Held { verdict, until: now.after(self.time) });
    }

    /// The answer to `question`, if one still holds.
    pub fn get(&mut self, question: &Question<'_>, now: Mono) -> Option<&Verdict<T>> {
        if self.answers.is_empty() {
            return None;
        }
        let key = question.line(None);
        let key = key.as_str();
        if self.answers.get(key)?.until <= now {
            self.answers.remove(key);
        }
        self.answers.get(key).map(|held| &held.verdict)
    }

    /// Forgets all answers, for targets may mean something else now.
    pub fn clear(&mut self) {
        self.answers = Sorted::default();
    }

    /// How many answers there are, those that hold no longer included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

/// The longest question, less what changes from session to session, whose answer is kept.
pub(super) const MAX_KEY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::tests::question;
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_cached_answer_is_for_the_same_question_only() {
        let mut cache = Cache::new(Duration::from_secs(5));
        let asked = Question {
            peer: Some("10.0.0.9:1".parse().unwrap()),
            local: Some("10.0.0.2:443".parse().unwrap()),
            authority: Some("a"),
            ..question("[::ffff:10.0.0.1]:1", Some("a"), &[b"h2"])
        };
        let no = Verdict::<u8>::Deny("no".to_owned());
        assert_eq!(cache.get(&asked, Mono(0)), None);
        cache.put(&asked, no.clone(), Mono(SECOND));
        let same = Question {
            id: 1,
            client: "10.0.0.1:9".parse().unwrap(),
            peer: Some("10.0.0.9:9".parse().unwrap()),
            ..asked
        };
        assert_eq!(cache.get(&same, Mono(6 * SECOND - 1)), Some(&no));
        for other in [
            Question { client: "10.0.0.2:1".parse().unwrap(), ..asked },
            Question { peer: None, ..asked },
            Question { local: Some("10.0.0.2:444".parse().unwrap()), ..asked },
            Question { sni: Some("b"), ..asked },
            Question { sni: None, ..asked },
            Question { alpn: &[], ..asked },
            Question { alpn: &[b"h2", b"h3"], ..asked },
            Question { authority: None, ..asked },
            Question { tls: false, ..asked },
        ] {
            assert_eq!(cache.get(&other, Mono(SECOND)), None, "{other:?}");
        }
        assert_eq!(cache.get(&asked, Mono(6 * SECOND)), None);
        assert!(cache.is_empty(), "its time is over");
        cache.put(&asked, no, Mono(7 * SECOND));
        cache.put(&asked, Verdict::Allow(Some(3)), Mono(8 * SECOND));
        assert_eq!(cache.get(&asked, Mono(12 * SECOND)), Some(&Verdict::Allow(Some(3))));
        cache.clear();
        assert!(cache.is_empty() && cache.get(&asked, Mono(12 * SECOND)).is_none());
    }

    #[test]
    fn no_time_no_cache_and_no_long_names() {
        let mut cache = Cache::<u8>::new(Duration::ZERO);
        let asked = question("10.0.0.1:1", Some("a"), &[]);
        cache.put(&asked, Verdict::Allow(None), Mono(1));
        assert!(cache.is_empty() && cache.get(&asked, Mono(1)).is_none());
        let mut cache = Cache::<u8>::new(Duration::from_secs(1));
        cache.put(&Question { sni: Some(&"a".repeat(2000)), ..asked }, Verdict::Allow(None), Mono(1));
        assert!(cache.is_empty());
    }

    #[test]
    fn the_oldest_answer_makes_room() {
        let mut cache = Cache::new(Duration::from_secs(3600));
        let names: Vec<String> = (0..=MAX_CACHED).map(|n| n.to_string()).collect();
        let asked = |n: usize| question("10.0.0.1:1", Some(&names[n]), &[]);
        for n in 0..MAX_CACHED {
            cache.put(&asked(n), Verdict::Allow(Some(n)), Mono(n as u64 + 1));
        }
        cache.put(&asked(0), Verdict::Allow(Some(0)), Mono(5000));
        assert_eq!(
            (cache.len(), cache.get(&asked(1), Mono(5000))),
            (MAX_CACHED, Some(&Verdict::Allow(Some(1))))
        );
        cache.put(&asked(MAX_CACHED), Verdict::Allow(None), Mono(5001));
        assert_eq!((cache.len(), cache.get(&asked(1), Mono(5001))), (MAX_CACHED, None));
        assert!(
            cache.get(&asked(0), Mono(5001)).is_some() && cache.get(&asked(MAX_CACHED), Mono(5001)).is_some()
        );
    }
}
