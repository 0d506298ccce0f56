//! The ring of refused first flights: which are kept, under what name, and as what text.
//!
//! ```text
//! hello-0007.hex    160301020001…      one line, as `beacond decode hello` reads and the vector files hold it
//! proxy-0000.hex    0d0a0d0a000d…      the same for `beacond decode proxy`
//! ```
//!
//! Each kind has its own slots, so that a flood of one does not push out the other. Both together are written at a
//! bounded rate: whoever can send rubbish must not be able to wear out a flash disk, or to turn the ring over before
//! anybody has looked. Pure: nothing here reads a folder or writes a file.

use crate::bytes::{LogBudget, to_hex};
use crate::clock::Mono;

/// The most bytes that are kept of a first flight: one full TLS record.
pub const MOST_BYTES: usize = 16 * 1024 + 5;

/// What a first flight was refused as; the kind of `beacond decode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A TLS ClientHello.
    Hello,
    /// A PROXY header.
    Proxy,
}

/// A place in the ring, and so a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    kind: Kind,
    number: usize,
}

/// A file to be written. Tell [`Ring::written`] when that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump {
    /// Where it goes.
    pub slot: Slot,
    /// What goes there, the line's end included.
    pub text: Vec<u8>,
    /// How many bytes of the flight it lacks, beyond [`MOST_BYTES`].
    pub cut: usize,
    /// How many flights were passed over since the last dump: too many at once.
    pub skipped: u64,
}

/// The slots, and the rate at which they are filled.
#[derive(Debug)]
pub struct Ring {
    slots: usize,
    /// The next slot of each kind.
    next: [usize; Kind::ALL.len()],
    writing: Vec<Slot>,
    budget: LogBudget,
    skipped: u64,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Hello, Kind::Proxy];

    /// Its name in file names and as an argument of `beacond decode`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hello => "hello",
            Kind::Proxy => "proxy",
        }
    }
}

impl Slot {
    /// The name of its file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}-{:04}{EXTENSION}", self.kind.name(), self.number)
    }

    /// The slot whose file has exactly this name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Slot> {
        let (kind, digits) = name.strip_suffix(EXTENSION)?.split_once('-')?;
        let kind = Kind::ALL.into_iter().find(|k| k.name() == kind)?;
        let slot = Slot { kind, number: digits.parse().ok()? };
        (slot.file_name() == name).then_some(slot)
    }

    /// A number of its own among all slots, by which a finished write can be told.
    #[must_use]
    pub fn id(self) -> usize {
        self.number.saturating_mul(Kind::ALL.len()).saturating_add(self.kind as usize)
    }
}

impl Ring {
    /// An empty ring of `slots` files of each kind, at least one.
    #[must_use]
    pub fn new(slots: usize) -> Ring {
        Ring {
            slots: slots.max(1),
            next: [0; Kind::ALL.len()],
            writing: Vec::new(),
            budget: LogBudget::new(BURST, PER_SECOND),
            skipped: 0,
        }
    }

    /// Goes on behind what an earlier run left: `names` of files, of this ring or not, the newest last.
    pub fn resume<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for slot in names.into_iter().filter_map(Slot::of_file) {
            // A larger ring of before may have left slots that this one does not have.
            let next = slot.number.saturating_add(1);
            self.next[slot.kind as usize] = if next < self.slots { next } else { 0 };
        }
    }

    /// What to write of a refused flight; nothing if it is empty, if writes have not ended, or if there were too many
    /// of late.
    pub fn keep(&mut self, kind: Kind, flight: &[u8], now: Mono) -> Option<Dump> {
        if flight.is_empty() {
            return None;
        }
        let slot = Slot { kind, number: self.next[kind as usize] };
        let busy = self.writing.len() >= AT_ONCE || self.writing.contains(&slot);
        if busy || self.budget.pass(now).is_none() {
            self.skipped = self.skipped.saturating_add(1);
            return None;
        }
        self.writing.push(slot);
        self.next[kind as usize] = (slot.number + 1) % self.slots;
        let (kept, cut) = flight.split_at(flight.len().min(MOST_BYTES));
        let text = (to_hex(kept) + "\n").into_bytes();
        Some(Dump { slot, text, cut: cut.len(), skipped: std::mem::take(&mut self.skipped) })
    }

    /// The write of the slot with this [`Slot::id`] has ended, well or not, or could not begin.
    pub fn written(&mut self, id: usize) {
        self.writing.retain(|slot| slot.id() != id);
    }
}

const EXTENSION: &str = ".hex";

/// The most writes under way: the disk may be slower than the budget.
const AT_ONCE: usize = 8;
/// What may be written at once, and from then on each second.
const BURST: u64 = 10;
const PER_SECOND: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::from_hex;

    const SECOND: u64 = 1_000_000;

    /// Keeps a flight and ends its write; the name of its file.
    fn kept(ring: &mut Ring, kind: Kind, now: Mono) -> Option<String> {
        let dump = ring.keep(kind, b"\x16", now)?;
        ring.written(dump.slot.id());
        Some(dump.slot.file_name())
    }

    #[test]
    fn slots_follow_each_other_and_wrap() {
        let mut ring = Ring::new(3);
        let names: Vec<_> = (1..8).map(|s| kept(&mut ring, Kind::Hello, Mono(s * SECOND)).unwrap()).collect();
        let number = |name: &str| name.strip_prefix("hello-000")?.strip_suffix(".hex")?.parse().ok();
        assert_eq!(
            names.iter().map(|n| number(n).unwrap()).collect::<Vec<usize>>(),
            [0, 1, 2, 0, 1, 2, 0],
            "{names:?}"
        );
        assert_eq!(kept(&mut ring, Kind::Proxy, Mono(9 * SECOND)).as_deref(), Some("proxy-0000.hex"));
        assert_eq!(kept(&mut ring, Kind::Hello, Mono(9 * SECOND)).as_deref(), Some("hello-0001.hex"));
        let mut ring = Ring::new(0);
        assert_eq!(kept(&mut ring, Kind::Proxy, Mono(SECOND)).as_deref(), Some("proxy-0000.hex"));
        assert_eq!(kept(&mut ring, Kind::Proxy, Mono(SECOND)).as_deref(), Some("proxy-0000.hex"));
    }

    #[test]
    fn the_text_reads_back_and_is_bounded() {
        for (length, cut) in [(1, 0), (MOST_BYTES, 0), (MOST_BYTES + 1, 1), (70_000, 70_000 - MOST_BYTES)] {
            let flight: Vec<u8> = (0..=255).cycle().take(length).collect();
            let dump = Ring::new(1).keep(Kind::Proxy, &flight, Mono(SECOND)).unwrap();
            let line = str::from_utf8(&dump.text).unwrap().strip_suffix('\n').unwrap();
            assert_eq!((from_hex(line).unwrap(), dump.cut), (flight[..length - cut].to_vec(), cut));
            assert_eq!(line, line.to_lowercase());
        }
        assert_eq!(Ring::new(1).keep(Kind::Hello, b"", Mono(SECOND)), None, "nothing to look at");
    }

    #[test]
    fn a_start_goes_on_behind_the_newest() {
        let mut ring = Ring::new(64);
        ring.resume([
            "hello-0009.hex",
            "hello-0063.hex",
            "proxy-0063.hex",
            "hello-0007.hex",
            "hello-7.hex",
            "hello-00008.hex",
            "hello-0008.hex.tmp",
            "hello-+008.hex",
            "notes",
            "hello-.hex",
            "other-0008.hex",
            "hello-99999999999999999999.hex",
        ]);
        assert_eq!(kept(&mut ring, Kind::Hello, Mono(SECOND)).as_deref(), Some("hello-0008.hex"));
        assert_eq!(kept(&mut ring, Kind::Proxy, Mono(SECOND)).as_deref(), Some("proxy-0000.hex"));
        ring.resume(["hello-0100.hex", &format!("proxy-{}.hex", usize::MAX)]);
        assert_eq!(kept(&mut ring, Kind::Hello, Mono(SECOND)).as_deref(), Some("hello-0000.hex"));
        assert_eq!(kept(&mut ring, Kind::Proxy, Mono(SECOND)).as_deref(), Some("proxy-0000.hex"));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let slots = [0, 7, 9_999, 10_000, 123_456].map(|number| Kind::ALL.map(|kind| Slot { kind, number }));
        let mut ids = Vec::new();
        for slot in slots.concat() {
            assert_eq!(Slot::of_file(&slot.file_name()), Some(slot));
            assert!(!ids.contains(&slot.id()));
            ids.push(slot.id());
        }
        assert_eq!(Slot { kind: Kind::Hello, number: 10_000 }.file_name(), "hello-10000.hex");
    }

    #[test]
    fn one_write_a_slot_and_few_at_once() {
        let mut ring = Ring::new(2);
        let now = Mono(SECOND);
        let first = ring.keep(Kind::Hello, b"a", now).unwrap();
        let second = ring.keep(Kind::Hello, b"b", now).unwrap();
        assert_eq!(ring.keep(Kind::Hello, b"c", now), None, "slot 0 is being written");
        assert!(ring.keep(Kind::Proxy, b"d", now).is_some_and(|dump| dump.skipped == 1));
        ring.written(second.slot.id());
        assert_eq!(ring.keep(Kind::Hello, b"e", now), None, "slot 1 is free, but not next");
        ring.written(first.slot.id());
        let third = ring.keep(Kind::Hello, b"f", now).unwrap();
        assert_eq!((third.slot, third.skipped), (first.slot, 1));

        let mut ring = Ring::new(100);
        assert_eq!((0..50).filter(|_| ring.keep(Kind::Hello, b"a", now).is_some()).count(), AT_ONCE);
    }

    #[test]
    fn a_flood_is_written_slowly() {
        let mut ring = Ring::new(1000);
        let mut in_second = [0u64; 61];
        for ms in 1_000..61_000 {
            let now = Mono(ms * 1_000);
            in_second[usize::try_from(ms / 1_000).unwrap()] +=
                u64::from(kept(&mut ring, Kind::Hello, now).is_some());
        }
        assert_eq!(in_second.iter().max(), Some(&BURST));
        assert_eq!(in_second.iter().sum::<u64>(), BURST + 59 * PER_SECOND);
        let dump = ring.keep(Kind::Hello, b"a", Mono(62 * SECOND)).unwrap();
        assert_eq!(dump.skipped, 999, "since the last second's one");
    }
}
