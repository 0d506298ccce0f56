//! One member as the pool sees it: its sessions, and what its weight counts for at a given time.

use super::health::Health;
use super::{Member, Row};
use crate::clock::{Mono, micros};
use crate::members::MemberId;
use std::cell::Cell;
use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Seat {
    pub id: MemberId,
    pub addr: SocketAddr,
    /// Hash of the address, which stands for the member in [`super::hash`].
    pub mark: u64,
    pub weight: u16,
    up: bool,
    /// Whether the last level named it, and whether the one being read did so far.
    present: bool,
    pub named: bool,
    /// Since when its weight grows; `None` if it was there at the start of the pool.
    pub ramp: Option<Mono>,
    /// What round robin owes it.
    pub credit: Cell<i64>,
    pub open: u64,
    pub total: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub health: Health,
}

impl Seat {
    /// Somebody of whom no level has been read yet.
    pub fn new(id: MemberId, addr: SocketAddr, mark: u64) -> Seat {
        Seat {
            id,
            addr,
            mark,
            weight: 0,
            up: false,
            present: false,
            named: false,
            ramp: None,
            credit: Cell::new(0),
            open: 0,
            total: 0,
            bytes_in: 0,
            bytes_out: 0,
            health: Health::default(),
        }
    }

    /// Takes over what the table says of it. Says whether that may change who can be picked.
    pub fn update(&mut self, member: &Member, mark: u64, now: Mono, first: bool) -> bool {
        let was = self.eligible();
        let is = member.up && member.weight > 0;
        let changed = was != is || self.weight != member.weight || self.addr != member.addr;
        (self.addr, self.mark) = (member.addr, mark);
        (self.weight, self.up, self.named) = (member.weight, member.up, true);
        if is && !was {
            self.health.clear();
            self.ramp = (!first).then_some(now);
            self.credit.set(0);
        }
        self.health.heard(member.last_seen, now) || changed
    }

    /// The level has been read. Says whether it took or left this one.
    pub fn close_level(&mut self) -> bool {
        let before = self.present;
        self.present = std::mem::take(&mut self.named);
        before != self.present
    }

    /// Whether it may take new sessions, were it not for an ejection.
    pub fn eligible(&self) -> bool {
        self.present && self.up && self.weight > 0
    }

    /// Whether nothing is left of it.
    pub fn vacant(&self) -> bool {
        !self.present && self.open == 0
    }

    /// Its weight in 1/256, at least 1: growing from its return on, for as long as `slow_start`.
    pub fn effective(&self, now: Mono, slow_start: Duration) -> u64 {
        let full = u64::from(self.weight) * UNIT;
        let slow = micros(slow_start);
        let Some(elapsed) = self.ramp.map(|from| micros(now.since(from))).filter(|e| *e < slow) else {
            return full.max(1);
        };
        let grown = u128::from(full) * u128::from(elapsed) / u128::from(slow);
        u64::try_from(grown).unwrap_or(full).max(1)
    }

    pub fn row(&self, now: Mono) -> Row {
        Row {
            id: self.id,
            addr: self.addr,
            open: self.open,
            total: self.total,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            failures: self.health.failures,
            ejected_for: self.health.out().filter(|until| *until > now).map(|until| until.since(now)),
        }
    }
}

/// Compares two members, each with its effective weight, by their sessions per weight.
pub(super) fn by_load(a: (&Seat, u64), b: (&Seat, u64)) -> Ordering {
    let crossed = |open: u64, weight: u64| u128::from(open) * u128::from(weight);
    crossed(a.0.open, b.1).cmp(&crossed(b.0.open, a.1))
}

/// A weight of 1, so that a part of it can be told.
pub(super) const UNIT: u64 = 256;
