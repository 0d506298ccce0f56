//! What was tried with one server, so that a change that has no effect is not repeated at every look.
//!
//! It had no effect, or somebody undoes it: either way it is repeated ever more slowly, and an addition only once a
//! minute. Pure: time comes in.

use super::diff::{Level, Step};
use crate::clock::Mono;
use std::time::Duration;

/// The memory of what was tried with one server.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    last: Option<Attempt>,
    said: Option<String>,
}

/// The change tried last.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    step: Step,
    from: Option<Level>,
    again_at: Mono,
    /// The same, where it was there and is gone again.
    if_undone: Mono,
    repeats: u32,
}

impl Tried {
    /// The same change was tried and is needed again: the time before which it is not repeated.
    #[must_use]
    pub fn blocked(&self, step: Step, from: Option<Level>, now: Mono) -> Option<Mono> {
        self.same(step, from).map(|last| last.again_at).filter(|&again_at| now < again_at)
    }

    /// Whether this very change is what was tried last.
    #[must_use]
    pub fn repeats(&self, step: Step, from: Option<Level>) -> bool {
        self.same(step, from).is_some()
    }

    /// Takes down that this change is being tried.
    pub fn attempt(&mut self, step: Step, from: Option<Level>, now: Mono) {
        let repeats = match self.same(step, from) {
            Some(last) if now < last.again_at.after(FORGIVEN) => last.repeats.saturating_add(1),
            _ => 0,
        };
        let if_undone = now.after((FIRST_PAUSE * 2_u32.saturating_pow(repeats.min(10))).min(LONGEST_PAUSE));
        let again_at = if matches!(step, Step::Add(_)) { now.after(ADD_PAUSE) } else { if_undone };
        self.last = Some(Attempt { step, from, again_at, if_undone, repeats });
        self.said = None;
    }

    /// The server is there: if an addition was tried, it was no failure.
    pub fn present(&mut self) {
        if let Some(last) = &mut self.last {
            last.again_at = last.again_at.min(last.if_undone);
        }
    }

    /// What the balancer said to it.
    pub fn say(&mut self, text: String) {
        self.said = Some(text);
    }

    /// The change tried last may never have reached the balancer: it was not at fault. If it was `sent`, it waits a
    /// little all the same, for it may be what the balancer cannot take.
    pub fn lost(&mut self, sent: bool, now: Mono) {
        match &mut self.last {
            Some(last) if sent => {
                last.again_at = last.again_at.min(now.after(LOST_PAUSE));
                self.said = Some("no answer".to_owned());
            }
            last => *last = None,
        }
    }

    /// Says why the server is not as wanted, after a change was refused a repetition for now.
    #[must_use]
    pub fn complaint(&self, step: Step) -> String {
        let said = self.said.as_deref().unwrap_or("no effect, or undone by somebody else");
        let what = match step {
            Step::Add(_) => "balancer add failed",
            Step::Enable(_) => "enabling failed",
            Step::Weight(_) => "setting the weight failed",
            Step::Drain => "draining failed",
            Step::Disable => "disabling failed",
            Step::Remove => "removing failed",
        };
        format!("{what}: {said}")
    }

    fn same(&self, step: Step, from: Option<Level>) -> Option<&Attempt> {
        self.last.as_ref().filter(|last| last.step == step && last.from == from)
    }
}

const ADD_PAUSE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LOST_PAUSE: Duration = Duration::from_secs(2);
/// A change that held this long was a success.
const FORGIVEN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_more_slowly_and_forgiven() {
        let (mut tried, step, from) = (Tried::default(), Step::Disable, Some(Level::Up));
        let mut now = Mono(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(tried.blocked(step, from, now), None);
            tried.attempt(step, from, now);
            let again = tried.blocked(step, from, now).unwrap();
            pauses.push(again.since(now).as_millis());
            now = again;
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(tried.blocked(Step::Drain, from, now), None, "another change is free");
        now = now.after(Duration::from_secs(61));
        tried.attempt(step, from, now);
        assert_eq!(tried.blocked(step, from, now).unwrap().since(now), FIRST_PAUSE);
        tried.attempt(Step::Add(1), None, now);
        assert_eq!(tried.blocked(Step::Add(1), None, now).unwrap().since(now), ADD_PAUSE);
        let mut there = tried.clone();
        there.present();
        assert_eq!(there.blocked(Step::Add(1), None, now).unwrap().since(now), FIRST_PAUSE);
        tried.lost(true, now);
        assert_eq!(tried.blocked(Step::Add(1), None, now).unwrap().since(now), LOST_PAUSE);
        assert_eq!(tried.complaint(Step::Add(1)), "balancer add failed: no answer");
        tried.lost(false, now);
        assert!(!tried.repeats(Step::Add(1), None));
    }
}
