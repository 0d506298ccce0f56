//! Whether a balancer's receiver hears anything. A deaf receiver must not take the silence for its members' death.

use crate::clock::Mono;
use std::time::Duration;

/// Why a datagram was dropped, as far as it explains that nothing valid is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// Its timestamp was outside the window: somebody's clock is wrong.
    Stale,
    /// Its MAC did not match: somebody's secret is wrong.
    BadMac,
    /// Anything else.
    Other,
}

/// Why nothing valid has been heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeafReason {
    /// No datagram came at all.
    Nothing,
    /// Every datagram that came had a stale timestamp.
    AllStale,
    /// Every datagram that came had a wrong MAC.
    AllBadMac,
    /// What the members are read from cannot be reached.
    Away,
    /// Datagrams came and were dropped, for other or several reasons.
    Mixed,
}

impl DeafReason {
    /// The reason in words, with what to look at.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            DeafReason::Nothing => "nothing received: network, firewall or address",
            DeafReason::AllStale => "all stale timestamp: check the clocks",
            DeafReason::AllBadMac => "all mac mismatch: check the secret",
            DeafReason::Away => "what its members are read from cannot be reached",
            DeafReason::Mixed => "everything received was dropped, for several reasons",
        }
    }
}

/// What to do about evictions while a balancer's receiver is deaf (`--when-deaf`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhenDeaf {
    /// Hold them until something valid is heard.
    Hold,
    /// Hold them for this long at most.
    HoldFor(Duration),
    /// Evict all the same.
    Evict,
}

/// What `status` says about a balancer that is deaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deafness {
    /// When it was noticed.
    pub since: Mono,
    /// When something valid was last heard; the start if nothing ever was.
    pub last_heard: Mono,
    /// Why, judged by what has been dropped since then.
    pub reason: DeafReason,
}

/// What has been heard and missed.
#[derive(Debug)]
pub(super) struct Hearing {
    last: Mono,
    /// Dropped since `last`, by [`Silence`].
    missed: [u64; 3],
    deaf: Option<Mono>,
    /// Since when what some of the members are read from cannot be reached. It says nothing of those that are heard.
    away: Option<Mono>,
}

/// What becomes of a member whose deadline has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Evict,
    /// Spare it, at most until then.
    Hold(Option<Mono>),
}

impl Hearing {
    pub fn new(now: Mono) -> Hearing {
        Hearing { last: now, missed: [0; 3], deaf: None, away: None }
    }

    /// Something valid came. If the receiver had been deaf: since when.
    pub fn heard(&mut self, now: Mono) -> Option<Mono> {
        self.last = now;
        self.missed = [0; 3];
        self.deaf.take()
    }

    /// Something came and was dropped.
    pub fn missed(&mut self, why: Silence) {
        let count = &mut self.missed[why as usize];
        *count = count.saturating_add(1);
    }

    /// What some of the members are read from cannot be reached. True if it could before.
    pub fn cut_off(&mut self, now: Mono) -> bool {
        self.away.replace(self.away.unwrap_or(now)).is_none()
    }

    /// It can be reached again. If it had been away: since when.
    pub fn reached(&mut self) -> Option<Mono> {
        self.away.take()
    }

    /// Whether nobody's absence means anything: what they are read from is away, or all that came since `start` was
    /// dropped, and it is our clock or our secret that is wrong.
    pub fn is_ignorant(&self, start: Mono) -> bool {
        self.away.is_some() || self.last <= start && self.missed.iter().any(|count| *count > 0)
    }

    /// Judges when a member's deadline has passed, with `up` members up. The second value is true when the
    /// receiver has just been found deaf: nothing valid for more than half of that member's timeout, although two
    /// or more should be talking.
    pub fn judge(&mut self, when: WhenDeaf, timeout: Duration, up: usize, now: Mono) -> (Verdict, bool) {
        if when == WhenDeaf::Evict {
            return (Verdict::Evict, false);
        }
        let news = self.deaf.is_none();
        if news && (up < 2 || now.since(self.last) <= timeout / 2) {
            return (Verdict::Evict, false);
        }
        let since = *self.deaf.get_or_insert(now);
        let until = match when {
            WhenDeaf::HoldFor(limit) => Some(since.after(limit)),
            WhenDeaf::Hold | WhenDeaf::Evict => None,
        };
        let held = until.is_none_or(|until| now < until);
        (if held { Verdict::Hold(until) } else { Verdict::Evict }, news)
    }

    pub fn deafness(&self) -> Option<Deafness> {
        let away = self.away.map(|since| Deafness { since, last_heard: self.last, reason: DeafReason::Away });
        away.or_else(|| self.unheard())
    }

    /// The deafness for which evictions are held.
    pub fn unheard(&self) -> Option<Deafness> {
        self.deaf.map(|since| Deafness { since, last_heard: self.last, reason: self.reason() })
    }

    pub fn last(&self) -> Mono {
        self.last
    }

    fn reason(&self) -> DeafReason {
        match self.missed {
            [0, 0, 0] => DeafReason::Nothing,
            [_, 0, 0] => DeafReason::AllStale,
            [0, _, 0] => DeafReason::AllBadMac,
            _ => DeafReason::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn at(s: u64) -> Mono {
        Mono(s * 1_000_000)
    }

    #[test]
    fn deaf_needs_two_up_and_more_than_half_a_timeout() {
        let mut hearing = Hearing::new(at(0));
        assert_eq!(hearing.judge(WhenDeaf::Hold, TIMEOUT, 1, at(40)), (Verdict::Evict, false));
        assert_eq!(hearing.judge(WhenDeaf::Hold, TIMEOUT, 2, at(15)), (Verdict::Evict, false));
        let late = Mono(at(15).0 + 1);
        assert_eq!(hearing.judge(WhenDeaf::Evict, TIMEOUT, 2, late), (Verdict::Evict, false));
        assert_eq!(hearing.deafness(), None);
        assert_eq!(hearing.judge(WhenDeaf::Hold, TIMEOUT, 2, late), (Verdict::Hold(None), true));
        assert_eq!(hearing.judge(WhenDeaf::Hold, TIMEOUT, 1, at(99)), (Verdict::Hold(None), false));
        assert_eq!(hearing.heard(at(100)), Some(late));
        assert_eq!(hearing.heard(at(101)), None);
    }

    #[test]
    fn what_is_away_stays_so_until_it_is_reached_and_spares_nobody_else() {
        let mut hearing = Hearing::new(at(0));
        assert!(hearing.cut_off(at(3)) && !hearing.cut_off(at(4)));
        assert_eq!(hearing.heard(at(5)), None);
        assert!(hearing.is_ignorant(at(0)), "absence means nothing");
        assert_eq!(hearing.deafness().map(|d| (d.since, d.reason)), Some((at(3), DeafReason::Away)));
        assert_eq!(hearing.judge(WhenDeaf::Hold, TIMEOUT, 1, at(40)), (Verdict::Evict, false));
        assert_eq!((hearing.reached(), hearing.reached()), (Some(at(3)), None));
        assert!(hearing.deafness().is_none() && !hearing.is_ignorant(at(0)));
    }

    #[test]
    fn a_bound_on_holding() {
        let mut hearing = Hearing::new(at(0));
        let when = WhenDeaf::HoldFor(Duration::from_secs(60));
        assert_eq!(hearing.judge(when, TIMEOUT, 2, at(30)), (Verdict::Hold(Some(at(90))), true));
        assert_eq!(hearing.judge(when, TIMEOUT, 2, at(89)), (Verdict::Hold(Some(at(90))), false));
        assert_eq!(hearing.judge(when, TIMEOUT, 2, at(90)), (Verdict::Evict, false));
        assert!(hearing.deafness().is_some(), "still deaf, only not patient");
    }

    #[test]
    fn the_reason_is_what_was_dropped_since_the_last_valid_message() {
        let reason = |drops: &[Silence]| {
            let mut hearing = Hearing::new(at(0));
            hearing.missed(Silence::Other);
            hearing.heard(at(1));
            drops.iter().for_each(|why| hearing.missed(*why));
            hearing.judge(WhenDeaf::Hold, TIMEOUT, 2, at(60));
            hearing.deafness().unwrap().reason
        };
        assert_eq!(reason(&[]), DeafReason::Nothing);
        assert_eq!(reason(&[Silence::Stale; 3]), DeafReason::AllStale);
        assert_eq!(reason(&[Silence::BadMac]), DeafReason::AllBadMac);
        assert_eq!(reason(&[Silence::BadMac, Silence::Stale]), DeafReason::Mixed);
        assert_eq!(reason(&[Silence::Other]), DeafReason::Mixed);
    }
}
