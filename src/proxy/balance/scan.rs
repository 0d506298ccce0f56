//! The choices that look at everybody: least connections and smooth weighted round robin.

use super::seat::{Seat, by_load};
use super::view::{Bits, View};
use std::cmp::Ordering;

/// Fewest sessions per weight; among equals, by weight.
pub(super) fn least(view: View<'_>, bits: &mut Bits) -> Option<usize> {
    let mut best: Option<(usize, &Seat, u64)> = None;
    let mut equals = 0u64;
    for this in view.untried() {
        let order = best.map_or(Ordering::Less, |best| by_load((this.1, this.2), (best.1, best.2)));
        match order {
            Ordering::Less => (best, equals) = (Some(this), this.2),
            Ordering::Equal => {
                equals = equals.saturating_add(this.2);
                if bits.below(equals) < this.2 {
                    best = Some(this);
                }
            }
            Ordering::Greater => {}
        }
    }
    best.map(|(at, ..)| at)
}

/// Whose turn it is, as nginx has it: everybody earns its weight, the richest is picked and pays what all earned.
pub(super) fn smooth(view: View<'_>) -> Option<usize> {
    let mut total = 0i64;
    let mut richest: Option<(usize, &Seat)> = None;
    for (at, seat, weight) in view.untried() {
        let weight = i64::try_from(weight).unwrap_or(i64::MAX);
        total = total.saturating_add(weight);
        seat.credit.set(seat.credit.get().saturating_add(weight));
        if richest.is_none_or(|(_, best)| seat.credit > best.credit) {
            richest = Some((at, seat));
        }
    }
    let (at, seat) = richest?;
    seat.credit.set(seat.credit.get().saturating_sub(total));
    Some(at)
}
