//! What is remembered of one member between two looks at Apache, and what its state therefore means.
//!
//! Apache says that a member is disabled, not by whom. What we disable we also drain, which nobody else would do; that
//! mark outlives us. Of what is only disabled, or only drained, we are told apart from an operator by memory: it was
//! taken out by us, or it was out when we first saw it and has never served. Pure: time comes in.

use super::page::{Status, Worker};
use crate::clock::Mono;
use crate::sinks::diff::{Have, Level};
use crate::sinks::tried::Tried;
use crate::views::ViewState;
use std::time::Duration;

/// The memory of one member.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Ours: we added it, or the table has named it.
    pub owned: bool,
    /// What was tried with it.
    pub tried: Tried,
    /// Why it is not as wanted, for `status`.
    pub error: Option<String>,
    /// Where it stood at the last look, and its weight then.
    pub shown: Option<(ViewState, u16)>,
    /// If it is out of rotation, that was us; so is what we make.
    pub held: bool,
    seen: bool,
    draining: Option<Mono>,
}

impl Note {
    /// Takes in what a look at Apache shows.
    pub fn observe(&mut self, worker: &Worker, now: Mono) {
        let Status { disabled, draining, .. } = worker.status;
        self.tried.present();
        if !std::mem::replace(&mut self.seen, true) {
            self.held |= (disabled && worker.elected == 0) || draining;
        }
        if !disabled && !draining {
            self.held = false;
        }
        self.draining = (draining && !disabled).then(|| self.draining.unwrap_or(now));
    }

    /// Apache has no such member (yet, or any more).
    pub fn absent(&mut self) {
        (self.seen, self.held, self.draining) = (false, false, None);
    }

    /// Where it is, for [`crate::sinks::diff`]. `stays`: a drain never ends.
    #[must_use]
    pub fn have(&self, worker: &Worker, stays: bool, now: Mono) -> Have {
        let over = self.draining.is_some_and(|since| now.since(since) >= GRACE);
        Have {
            level: self.level(worker.status),
            weight: weight(worker.factor),
            owned: self.owned,
            drained: !stays && (worker.busy == 0 || over),
            removable: false,
        }
    }

    fn level(&self, status: Status) -> Level {
        match (status.disabled, status.draining) {
            _ if status.stopped => Level::Operator,
            (true, true) => Level::Down,
            (true, false) if self.held => Level::Down,
            (false, true) if self.held => Level::Draining,
            (false, false) => Level::Up,
            _ => Level::Operator,
        }
    }
}

/// A load factor as a weight; 0, which none of ours has, for what is no whole number.
fn weight(factor: u32) -> u16 {
    let whole = factor.is_multiple_of(100).then_some(factor / 100);
    whole.and_then(|whole| u16::try_from(whole).ok()).unwrap_or(0)
}

/// A member that said goodbye is out of rotation after this time, whatever still runs there.
const GRACE: Duration = Duration::from_secs(30);
