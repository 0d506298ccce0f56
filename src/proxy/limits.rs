//! What the process's limit of descriptors has room for: sessions, and pipes for streams in bulk. Pure; several proxies
//! divide the limit among them.

/// How many sessions, and how many pipes, one of `proxies` may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Sessions at once: two descriptors each.
    pub sessions: usize,
    /// Pipes lent: two descriptors each.
    pub pipes: usize,
}

impl Limits {
    /// What there is room for with so many descriptors; `wanted` sessions, where that is fewer.
    #[must_use]
    pub fn of(descriptors: u64, proxies: usize, wanted: Option<usize>) -> Limits {
        let share = descriptors / u64::try_from(proxies.max(1)).unwrap_or(u64::MAX);
        let pipes = PIPES.min(share / 16);
        let spare = SPARE.min(share / 4) + 2 * pipes;
        let room = whole(share.saturating_sub(spare) / 2).max(1);
        Limits { sessions: wanted.map_or(room, |wanted| wanted.min(room)), pipes: whole(pipes) }
    }
}

fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The most pipes that streams in bulk are lent.
const PIPES: u64 = 128;
/// Descriptors for everything that is no session.
const SPARE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_there_are_descriptors_for() {
        let of = |descriptors, proxies, wanted| {
            let Limits { sessions, pipes } = Limits::of(descriptors, proxies, wanted);
            (sessions, pipes)
        };
        assert_eq!(of(20_000, 1, None), (9_840, 128));
        assert_eq!(of(1_024, 1, None), (416, 64));
        assert_eq!(of(1_024, 2, None), (192, 32));
        assert_eq!(of(20_000, 1, Some(100)), (100, 128));
        assert_eq!(of(1_024, 1, Some(5_000)), (416, 64));
        assert_eq!(of(8, 3, None), (1, 0));
        for (descriptors, proxies) in [(64, 1), (256, 3), (1_000, 2), (65_536, 7)] {
            let (sessions, pipes) = of(descriptors, proxies, None);
            assert!(u64::try_from(2 * proxies * (sessions + pipes)).unwrap() < descriptors);
        }
    }
}
