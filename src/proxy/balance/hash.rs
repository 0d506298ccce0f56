//! Weighted rendezvous hashing with bounded load: the same key finds the same member, on every proxy.
//!
//! Each member draws a number from the key and its address; with u in (0, 1] made of it, the smallest
//! -log(u) / weight wins. A member that comes, goes or changes its weight moves only keys of its own. All in whole
//! numbers, so that no two machines differ in the last digit.
//!
//! Bounded load: a member with more sessions than 1.25 times its fair share, rounded up, is passed over.

use super::seat::Seat;
use super::view::View;
use siphasher::sip::SipHasher13;
use std::net::SocketAddr;

/// For all proxies the same, and so no secret: whoever may choose keys may aim them at one member, as far as the
/// bound allows.
pub const SEED: [u64; 2] = [0x6265_6163_6f6e_6420, 0x7265_6e64_6576_6f75];

/// Hashes keys and members.
#[derive(Clone, Debug)]
pub(super) struct Hasher(SipHasher13);

impl Hasher {
    pub fn new(seed: [u64; 2]) -> Hasher {
        Hasher(SipHasher13::new_with_keys(seed[0], seed[1]))
    }

    /// What stands for a member: its address. Its id is another in every process.
    pub fn mark(&self, addr: SocketAddr) -> u64 {
        let mut bytes = [0; 18];
        let ip = match addr.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        bytes[..16].copy_from_slice(&ip.octets());
        bytes[16..].copy_from_slice(&addr.port().to_be_bytes());
        self.0.hash(&bytes)
    }

    /// The choice.
    pub fn pick(&self, view: View<'_>, key: &[u8]) -> Option<usize> {
        let key = self.0.hash(key);
        let (open, weights) = view.all().fold((0, 0), |(open, weights), (_, seat, weight)| {
            (open + u128::from(seat.open), weights + u128::from(weight))
        });
        let mut best: Option<Bid> = None;
        let mut best_of_all: Option<Bid> = None;
        for (at, seat, weight) in view.untried() {
            let bid = Bid { at, drawn: self.draw(key, seat), weight, seat: (seat.mark, seat.id) };
            if best_of_all.is_none_or(|best| bid.beats(best)) {
                best_of_all = Some(bid);
            }
            let share = (open * 5 * u128::from(weight)).div_ceil((weights * 4).max(1));
            if u128::from(seat.open) <= share && best.is_none_or(|best| bid.beats(best)) {
                best = Some(bid);
            }
        }
        best.or(best_of_all).map(|bid| bid.at)
    }

    fn draw(&self, key: u64, seat: &Seat) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_be_bytes());
        bytes[8..].copy_from_slice(&seat.mark.to_be_bytes());
        self.0.hash(&bytes)
    }
}

/// What a member offers for a key.
#[derive(Clone, Copy)]
struct Bid {
    at: usize,
    drawn: u64,
    weight: u64,
    /// Decides between members of one address.
    seat: (u64, crate::members::MemberId),
}

impl Bid {
    /// Whether this one wins. Only when one has drawn better and the other weighs more is it worth a logarithm.
    fn beats(self, other: Bid) -> bool {
        if (self.drawn, self.weight) == (other.drawn, other.weight) {
            return self.seat < other.seat;
        }
        if self.drawn >= other.drawn && self.weight >= other.weight {
            return true;
        }
        if self.drawn <= other.drawn && self.weight <= other.weight {
            return false;
        }
        let mine = u128::from(depth(self.drawn)) * u128::from(other.weight);
        let theirs = u128::from(depth(other.drawn)) * u128::from(self.weight);
        mine < theirs || mine == theirs && self.drawn > other.drawn
    }
}

/// -log2 of (drawn / 2^64), in 2^-48, rounded up; never falls as `drawn` falls. Bit by bit: squaring a number
/// doubles its logarithm.
fn depth(drawn: u64) -> u64 {
    let zeros = drawn.leading_zeros();
    let whole = u64::from(zeros + 1) << FRACTION;
    // From 2^63 up, as a number between 1 and 2.
    let mut rest = u128::from(drawn.checked_shl(zeros).unwrap_or(1 << 63));
    let mut log = 0;
    for _ in 0..FRACTION {
        rest = (rest * rest) >> 63;
        log <<= 1;
        if rest >> 64 != 0 {
            rest >>= 1;
            log |= 1;
        }
    }
    whole - log
}

const FRACTION: u32 = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depths() {
        assert_eq!(depth(1 << 63), 1 << FRACTION);
        assert_eq!(depth(1), 64 << FRACTION);
        assert_eq!(depth(0), 65 << FRACTION);
        assert_eq!(depth(u64::MAX), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn depth_is_a_logarithm(drawn in 1u64.., shift in 0u32..60, step in 0u64..1000) {
            let drawn = (drawn >> shift).max(1);
            #[expect(clippy::cast_precision_loss, reason = "a comparison with floats")]
            let (got, want) = (depth(drawn) as f64 / 2f64.powi(48), 64.0 - (drawn as f64).log2());
            prop_assert!((got - want).abs() < 1e-12 * want.max(1.0), "{drawn}: {got} {want}");
            prop_assert!(depth(drawn.saturating_add(step)) <= depth(drawn));
        }
    }
}
