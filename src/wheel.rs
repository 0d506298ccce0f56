//! The timer wheel: deadlines in whole milliseconds, O(1) to arm, cancel and fire.
//!
//! Seven levels of 64 slots. A timer stands on the level of the highest 6-bit digit in which its deadline differs
//! from the wheel's current time, in the slot named by that digit. So the lowest occupied level always holds the
//! nearest deadlines, and its first occupied slot the nearest of all. When time enters a slot of a higher level
//! its timers move down (each at most six times in its life). That *cascade* happens inside [`Wheel::pop`], when
//! somebody came for another reason; it never is a reason to wake up.
//!
//! ```text
//! level 0   64 slots of  1 ms      level 4   64 slots of  4.7 h
//! level 1   64 slots of 64 ms      level 5   64 slots of 12.4 days
//! level 2   64 slots of 4.1 s      level 6   64 slots of  2.2 years    together 2^42 ms, 139 years
//! level 3   64 slots of 4.4 min
//! ```
//!
//! This file never reads a clock and never rounds: whoever arms decides what millisecond a deadline is.

use std::num::NonZeroU32;

/// The last millisecond the wheel can tell from others. Later deadlines, and later times, count as this one.
pub const HORIZON: u64 = (1 << 42) - 1;

/// Names one armed timer. Once the timer has fired or was cancelled the id is stale, and harmless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerId {
    index: u32,
    generation: NonZeroU32,
}

/// A set of deadlines, each with a value that comes back when it is due.
#[derive(Debug)]
pub struct Wheel<T> {
    /// The time up to which everything due has been handed out.
    current: u64,
    /// Per level, one bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    /// All slots, level by level.
    slots: Vec<Slot>,
    entries: Vec<Entry<T>>,
    /// First vacant entry; the vacant ones are chained through `next`.
    free: u32,
    len: usize,
}

/// A first-in first-out list of entries.
#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    tail: u32,
    /// The earliest deadline in here, [`UNKNOWN`] until somebody asks. Not kept on level 0, where a slot has one.
    earliest: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    /// `None` while the entry is vacant.
    value: Option<T>,
    generation: NonZeroU32,
    prev: u32,
    next: u32,
    place: u16,
}

impl<T> Default for Wheel<T> {
    fn default() -> Wheel<T> {
        Wheel::new()
    }
}

impl<T> Wheel<T> {
    /// An empty wheel whose current time is 0.
    #[must_use]
    pub fn new() -> Wheel<T> {
        Wheel {
            current: 0,
            occupied: [0; LEVELS],
            slots: vec![EMPTY; LEVELS * 64],
            entries: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    /// Makes room for `timers` armed at once, so that arming them moves nothing in memory.
    pub fn reserve(&mut self, timers: usize) {
        self.entries.reserve_exact(timers.saturating_sub(self.entries.len()));
    }

    /// Arms a timer that is due once time has reached `at_ms`. A time already passed is due at once; beyond
    /// [`HORIZON`] counts as the horizon.
    ///
    /// # Panics
    /// With 2^32 timers armed.
    pub fn arm(&mut self, at_ms: u64, value: T) -> TimerId {
        let at = at_ms.clamp(self.current, HORIZON);
        let index = self.vacancy(at, value);
        self.link(index);
        self.len += 1;
        TimerId { index, generation: self.entry(index).generation }
    }

    /// Disarms a timer and returns its value; `None` if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<T> {
        let entry = self.entries.get(id.index as usize)?;
        if entry.generation != id.generation || entry.value.is_none() {
            return None;
        }
        self.unlink(id.index);
        self.vacate(id.index)
    }

    /// Takes the next timer due at `now_ms`: earliest deadline first, those of one millisecond in the order they
    /// were armed. When it returns `None`, the wheel's current time is `now_ms`.
    pub fn pop(&mut self, now_ms: u64) -> Option<T> {
        let now = now_ms.clamp(self.current, HORIZON);
        while let Some(place) = self.first() {
            let start = self.start_of(place);
            if start > now {
                break;
            }
            self.current = start;
            let head = self.slots[usize::from(place)].head;
            if place < 64 {
                self.unlink(head);
                return self.vacate(head);
            }
            self.cascade(place);
        }
        self.current = now;
        None
    }

    /// The millisecond at which the earliest timer is due, exactly. At most the wheel's current time if one is
    /// due already.
    #[expect(clippy::should_implement_trait, reason = "a reader of the wheel, which is no iterator")]
    pub fn next(&mut self) -> Option<u64> {
        let place = self.first()?;
        if place < 64 {
            return Some(self.start_of(place));
        }
        let slot = self.slots[usize::from(place)];
        if slot.earliest != UNKNOWN {
            return Some(slot.earliest);
        }
        let mut earliest = HORIZON;
        let mut index = slot.head;
        while index != NIL {
            let entry = self.entry(index);
            earliest = earliest.min(entry.at);
            index = entry.next;
        }
        self.slots[usize::from(place)].earliest = earliest;
        Some(earliest)
    }

    /// When a timer is due; `None` if the id is stale.
    #[must_use]
    pub fn deadline(&self, id: TimerId) -> Option<u64> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.generation == id.generation && entry.value.is_some()).then_some(entry.at)
    }

    /// The wheel's current time in milliseconds: all that was due by then has been handed out.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current
    }

    /// How many timers are armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first occupied slot of the lowest occupied level.
    fn first(&self) -> Option<u16> {
        let (level, word) = (0u16..).zip(self.occupied).find(|(_, word)| *word != 0)?;
        let digit = u16::try_from(word.trailing_zeros()).expect("a bit of 64");
        Some(level * 64 + digit)
    }

    /// The first millisecond of a slot: the current time's digits above its level, its own digit, zeros below.
    fn start_of(&self, place: u16) -> u64 {
        let shift = u32::from(place / 64) * BITS;
        let above = self.current >> (shift + BITS) << (shift + BITS);
        above | u64::from(place % 64) << shift
    }

    /// Where a deadline belongs, seen from the current time.
    fn place(&self, at: u64) -> u16 {
        let differ = at ^ self.current;
        let level = differ.checked_ilog2().unwrap_or(0) / BITS;
        let digit = at >> (level * BITS) & 63;
        u16::try_from(u64::from(level) * 64 + digit).expect("seven levels of 64 slots")
    }

    /// Moves the timers of a slot that time has just entered to the levels below.
    fn cascade(&mut self, place: u16) {
        let mut index = self.slots[usize::from(place)].head;
        self.slots[usize::from(place)] = EMPTY;
        self.occupied[usize::from(place / 64)] &= !(1 << (place % 64));
        while index != NIL {
            let next = self.entry(index).next;
            self.link(index);
            index = next;
        }
    }

    /// Appends an entry to the slot its deadline belongs to.
    fn link(&mut self, index: u32) {
        let at = self.entry(index).at;
        let place = self.place(at);
        let slot = self.slots[usize::from(place)];
        let entry = self.entry_mut(index);
        (entry.place, entry.prev, entry.next) = (place, slot.tail, NIL);
        let new = &mut self.slots[usize::from(place)];
        new.tail = index;
        if slot.tail == NIL {
            new.head = index;
            new.earliest = at;
            self.occupied[usize::from(place / 64)] |= 1 << (place % 64);
        } else {
            new.earliest = slot.earliest.min(at);
            self.entry_mut(slot.tail).next = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let &Entry { at, prev, next, place, .. } = self.entry(index);
        let slot = &mut self.slots[usize::from(place)];
        if slot.earliest == at {
            slot.earliest = UNKNOWN;
        }
        if prev == NIL {
            slot.head = next;
        }
        if next == NIL {
            slot.tail = prev;
        }
        if slot.head == NIL {
            self.occupied[usize::from(place / 64)] &= !(1 << (place % 64));
        }
        if prev != NIL {
            self.entry_mut(prev).next = next;
        }
        if next != NIL {
            self.entry_mut(next).prev = prev;
        }
    }

    /// Puts a value into a vacant entry.
    fn vacancy(&mut self, at: u64, value: T) -> u32 {
        if self.free == NIL {
            let index = u32::try_from(self.entries.len()).ok().filter(|i| *i != NIL);
            let generation = NonZeroU32::MIN;
            self.entries.push(Entry { at, value: Some(value), generation, prev: NIL, next: NIL, place: 0 });
            return index.expect("fewer than 2^32 timers");
        }
        let index = self.free;
        let entry = self.entry_mut(index);
        (entry.at, entry.value) = (at, Some(value));
        self.free = entry.next;
        index
    }

    /// Takes the value out of an unlinked entry. From here on its ids are stale.
    fn vacate(&mut self, index: u32) -> Option<T> {
        let free = self.free;
        let entry = self.entry_mut(index);
        entry.generation = entry.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.next = free;
        let value = entry.value.take();
        self.free = index;
        self.len -= 1;
        value
    }

    fn entry(&self, index: u32) -> &Entry<T> {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize]
    }
}

/// Bits of a digit: 64 slots a level.
const BITS: u32 = 6;
const LEVELS: usize = 7;
/// No entry.
const NIL: u32 = u32::MAX;
/// No deadline on level 1 or above can be 0.
const UNKNOWN: u64 = 0;
const EMPTY: Slot = Slot { head: NIL, tail: NIL, earliest: UNKNOWN };

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// What a program may do to a wheel.
    #[derive(Clone, Debug)]
    enum Op {
        /// Arm this far ahead of the present.
        Arm(u64),
        /// Arm at an absolute time, perhaps long past.
        ArmAt(u64),
        /// Cancel the n-th id ever given out, stale or not.
        Cancel(usize),
        /// Take one due timer only, with time this far ahead.
        PopOne(u64),
        /// Let time pass and take all that is due.
        Pass(u64),
        /// Jump exactly to the next deadline.
        PassToNext,
    }

    fn delay() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0u64..200,
            3 => 0u64..10_000,
            2 => (0u32..44).prop_map(|bits| 1u64 << bits),
            2 => (0u32..44, -2i64..3).prop_map(|(bits, off)| (1u64 << bits).saturating_add_signed(off)),
            1 => 0u64..1 << 40,
            1 => Just(u64::MAX),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => delay().prop_map(Op::Arm),
            1 => delay().prop_map(Op::ArmAt),
            3 => (0usize..200).prop_map(Op::Cancel),
            2 => delay().prop_map(Op::PopOne),
            2 => (0u64..500).prop_map(Op::Pass),
            1 => delay().prop_map(|d| Op::Pass(d.min(1 << 36))),
            4 => Just(Op::PassToNext),
        ]
    }

    /// The same thing, slow and plain: an ordered map from (deadline, order of arming).
    #[derive(Default)]
    struct Model {
        timers: BTreeMap<(u64, usize), usize>,
        /// Key and id of every timer ever armed.
        all: Vec<((u64, usize), TimerId)>,
        /// Up to when all that was due has been handed out.
        current: u64,
        now: u64,
    }

    impl Model {
        fn arm(&mut self, wheel: &mut Wheel<usize>, at: u64) {
            let n = self.all.len();
            let key = (at.clamp(self.current, HORIZON), n);
            self.timers.insert(key, n);
            self.all.push((key, wheel.arm(at, n)));
        }

        fn pop(&mut self, wheel: &mut Wheel<usize>) -> bool {
            let now = self.now.clamp(self.current, HORIZON);
            let due = self.timers.keys().next().copied().filter(|key| key.0 <= now);
            let due = due.and_then(|key| self.timers.remove_entry(&key));
            self.current = due.map_or(now, |((at, _), _)| at);
            assert_eq!(wheel.pop(self.now), due.map(|(_, n)| n));
            due.is_some()
        }

        fn step(&mut self, wheel: &mut Wheel<usize>, op: &Op) {
            match *op {
                Op::Arm(d) => self.arm(wheel, self.now.saturating_add(d)),
                Op::ArmAt(at) => self.arm(wheel, at),
                Op::Cancel(n) => {
                    let Some(&(key, id)) = self.all.get(n) else { return };
                    let live = self.timers.remove(&key);
                    assert_eq!(wheel.deadline(id), live.map(|_| key.0));
                    assert_eq!(wheel.cancel(id), live);
                    assert_eq!(wheel.cancel(id), None);
                }
                Op::PopOne(d) => {
                    self.now = self.now.saturating_add(d);
                    self.pop(wheel);
                }
                Op::Pass(d) => {
                    self.now = self.now.saturating_add(d);
                    while self.pop(wheel) {}
                }
                Op::PassToNext => {
                    let Some(next) = wheel.next() else { return };
                    self.now = self.now.max(next);
                    assert!(self.pop(wheel), "nothing was due at the announced deadline");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn same_as_an_ordered_map(ops in proptest::collection::vec(op(), 1..200)) {
            let (mut wheel, mut model) = (Wheel::new(), Model::default());
            for op in &ops {
                model.step(&mut wheel, op);
                prop_assert_eq!(wheel.next(), model.timers.keys().next().map(|key| key.0));
                prop_assert_eq!(wheel.len(), model.timers.len());
            }
        }
    }

    #[test]
    fn one_millisecond_keeps_the_order_of_arming() {
        let mut wheel = Wheel::new();
        wheel.arm(5000, 'a');
        assert_eq!(wheel.pop(4990), None);
        wheel.arm(5000, 'b');
        assert_eq!(wheel.pop(4999), None);
        wheel.arm(5000, 'c');
        let fired: String = std::iter::from_fn(|| wheel.pop(5000)).collect();
        assert_eq!(fired, "abc");
    }

    #[test]
    fn a_stale_id_cannot_hit_the_entry_s_next_tenant() {
        let mut wheel = Wheel::new();
        let first = wheel.arm(10, 1);
        assert_eq!(wheel.cancel(first), Some(1));
        let second = wheel.arm(20, 2);
        assert_eq!(second.index, first.index);
        assert_eq!(wheel.cancel(first), None);
        assert_eq!((wheel.deadline(first), wheel.deadline(second)), (None, Some(20)));
        assert_eq!(wheel.cancel(second), Some(2));
        assert!(wheel.is_empty());
    }

    #[test]
    fn next_is_exact_far_away_and_after_the_earliest_was_cancelled() {
        let mut wheel = Wheel::new();
        let ids: Vec<_> = [90_061, 90_007, 90_123].into_iter().map(|at| wheel.arm(at, at)).collect();
        assert_eq!(wheel.next(), Some(90_007));
        wheel.cancel(ids[1]);
        assert_eq!(wheel.next(), Some(90_061));
        assert_eq!(wheel.pop(90_060), None);
        assert_eq!(wheel.pop(90_061), Some(90_061));
        assert_eq!(wheel.next(), Some(90_123));
    }

    #[test]
    fn reserve_means_no_growth() {
        let mut wheel = Wheel::new();
        wheel.reserve(1000);
        let before = wheel.entries.capacity();
        for at in 0..1000 {
            wheel.arm(at, ());
        }
        assert_eq!(wheel.entries.capacity(), before);
    }
}
