//! Two random members, and the one with fewer sessions per weight: no scan, and no herd when news comes late.
//!
//! The first is drawn by weight, the second from all others alike. Were both drawn alike, a member among n could
//! never get more than 2/n of the sessions, whatever its weight. If they are equally loaded the first is taken, so
//! idle members are picked by weight. Who is drawn first while its weight grows is drawn again as often as is still
//! missing, up to a limit that is met only when hardly anybody has grown.

use super::seat::{UNIT, by_load};
use super::view::{Bits, View};
use std::cmp::Ordering;

/// Draws places of a list by weight in constant time: Walker's alias method, in whole numbers.
#[derive(Debug, Default)]
pub(super) struct Draws {
    /// A place keeps a draw below its share of `total`, and passes the rest on to its alias.
    shares: Vec<(u64, usize)>,
    total: u64,
}

impl Draws {
    /// Prepares for these weights.
    pub fn prepare(&mut self, weights: impl Iterator<Item = u16> + Clone) {
        self.total = weights.clone().map(u64::from).sum();
        let count = u64::try_from(weights.clone().count()).unwrap_or(u64::MAX);
        self.shares.clear();
        self.shares.extend((0..).zip(weights).map(|(place, w)| (u64::from(w).saturating_mul(count), place)));
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
            (0..self.shares.len()).partition(|place| self.shares[*place].0 < self.total);
        while let (Some(&giver), Some(taker)) = (rich.last(), poor.pop()) {
            let given = self.total.saturating_sub(self.shares[taker].0);
            self.shares[taker].1 = giver;
            self.shares[giver].0 = self.shares[giver].0.saturating_sub(given);
            if self.shares[giver].0 < self.total {
                rich.pop();
                poor.push(giver);
            }
        }
    }

    fn draw(&self, bits: &mut Bits) -> usize {
        let place = bits.place(self.shares.len());
        match self.shares.get(place) {
            Some((share, alias)) if bits.below(self.total) >= *share => *alias,
            _ => place,
        }
    }
}

/// The choice; the draws were prepared for the view's list.
pub(super) fn pick(view: View<'_>, draws: &Draws, bits: &mut Bits) -> Option<usize> {
    let len = view.list.len();
    let mut drawn = draws.draw(bits);
    for _ in 0..REDRAWS {
        let (_, seat, effective) = view.at(*view.list.get(drawn)?);
        if bits.below(u64::from(seat.weight) * UNIT) < effective {
            break;
        }
        drawn = draws.draw(bits);
    }
    let place = from(view, drawn, None)?;
    let first = view.at(view.list[place]);
    let start = place + 1 + bits.place(len - 1);
    let Some(other) = from(view, start, Some(place)) else { return Some(first.0) };
    let second = view.at(view.list[other]);
    let better = by_load((second.1, second.2), (first.1, first.2)) == Ordering::Less;
    Some(if better { second.0 } else { first.0 })
}

/// The first place from `start` on, around the end, that may be picked. Steps over as many as were tried.
fn from(view: View<'_>, start: usize, but: Option<usize>) -> Option<usize> {
    let len = view.list.len();
    let steps = len.min(view.tried.len() + 2);
    (start..start.saturating_add(steps))
        .map(|place| place % len)
        .find(|place| Some(*place) != but && !view.tried.contains(&view.seats[view.list[*place]].id))
}

const REDRAWS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// The shares that places keep and are given make up exactly their weights.
        #[test]
        fn draws_are_exact(weights in proptest::collection::vec(1u16..=u16::MAX, 1..40)) {
            let mut draws = Draws::default();
            draws.prepare(weights.iter().copied());
            let mut shares = vec![0; weights.len()];
            for (place, (share, alias)) in draws.shares.iter().enumerate() {
                shares[place] += share;
                shares[*alias] += draws.total - share;
            }
            let count = u64::try_from(weights.len()).unwrap();
            prop_assert_eq!(shares, weights.iter().map(|w| u64::from(*w) * count).collect::<Vec<_>>());
        }
    }
}
