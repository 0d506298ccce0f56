//! Whom a choice is made among, and the random bits it is made by.

use super::seat::Seat;
use crate::clock::Mono;
use crate::members::MemberId;
use std::time::Duration;

/// Some of the pool's members: those of `list`, but for the `tried`. A choice is a place in `seats`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub seats: &'a [Seat],
    pub list: &'a [usize],
    pub tried: &'a [MemberId],
    pub now: Mono,
    pub slow_start: Duration,
}

impl<'a> View<'a> {
    /// All in the list with their effective weights.
    pub fn all(self) -> impl Iterator<Item = (usize, &'a Seat, u64)> {
        self.list.iter().map(move |at| self.at(*at))
    }

    /// Those of them that were not tried.
    pub fn untried(self) -> impl Iterator<Item = (usize, &'a Seat, u64)> {
        self.all().filter(move |(_, seat, _)| !self.tried.contains(&seat.id))
    }

    /// The one at this place in `seats`.
    pub fn at(self, at: usize) -> (usize, &'a Seat, u64) {
        let seat = &self.seats[at];
        (at, seat, seat.effective(self.now, self.slow_start))
    }
}

/// As many random bits as needed out of 64 (this is SplitMix64).
pub(super) struct Bits(pub u64);

impl Bits {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// A number below `n`; 0 if there is none.
    pub fn below(&mut self, n: u64) -> u64 {
        u64::try_from((u128::from(self.next()) * u128::from(n)) >> 64).unwrap_or(0)
    }

    /// A place in something of this length; 0 if there is none.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(u64::MAX))).unwrap_or(0)
    }
}
