//! Where a balancer's members are kept: slots, an index by url bytes, and the dead in the order they died.
//!
//! Everything is reserved when the cap is known, so that no announcement ever pays for a move of the whole table;
//! pages not yet used cost nothing. The index is open addressing with linear probing and a keyed hash, so that
//! nobody who may announce can choose urls that collide. This file decides nothing.

use super::member::{Member, MemberId};
use crate::bytes::same;
use siphasher::sip::SipHasher13;
use std::cell::Cell;

/// Members by slot and by url.
#[derive(Debug)]
pub(super) struct Table {
    hasher: SipHasher13,
    /// Slot number + 1, or 0 where nobody is; its length is a power of two.
    index: Vec<u32>,
    slots: Vec<Slot>,
    /// First vacant slot; the vacant ones are chained through `next`.
    free: u32,
    len: usize,
    /// Dead the longest, and dead most recently.
    dead: (u32, u32),
    /// Found last. Each datagram asks twice for its url: whether it is known, then what it changes.
    last: Cell<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Neighbours among the dead.
    prev: u32,
    next: u32,
    member: Option<Member>,
}

impl Table {
    pub fn new(seed: [u64; 2]) -> Table {
        Table {
            hasher: SipHasher13::new_with_keys(seed[0], seed[1]),
            index: vec![0; 8],
            slots: Vec::new(),
            free: NIL,
            len: 0,
            dead: (NIL, NIL),
            last: Cell::new(NIL),
        }
    }

    /// Makes room for `members` in all.
    pub fn reserve(&mut self, members: usize) {
        self.slots.reserve_exact(members.saturating_sub(self.slots.len()));
        let wanted = (members + members / 3 + 1).next_power_of_two();
        if wanted <= self.index.len() {
            return;
        }
        self.index = vec![0; wanted];
        for index in self.indices().collect::<Vec<_>>() {
            self.enter(index);
        }
    }

    pub fn hash(&self, url: &[u8]) -> u32 {
        let [a, b, c, d, ..] = self.hasher.hash(url).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub fn find(&self, url: &[u8]) -> Option<u32> {
        let last = self.slots.get(self.last.get() as usize).and_then(|slot| slot.member.as_ref());
        if last.is_some_and(|member| same(member.url(), url)) {
            return Some(self.last.get());
        }
        self.look_up(url)
    }

    /// As [`Table::find`], for a url that is hardly the one that was found last.
    pub fn look_up(&self, url: &[u8]) -> Option<u32> {
        let hash = self.hash(url);
        let mut at = self.home(hash);
        loop {
            let index = self.index.get(at)?.checked_sub(1)?;
            let member = self.get(index);
            if member.hash == hash && same(member.url(), url) {
                self.last.set(index);
                return Some(index);
            }
            at = self.after(at);
        }
    }

    /// Adds a member whose url is not in the table. The caller keeps to the reserved number.
    pub fn insert(&mut self, member: Member) -> u32 {
        let index = if self.free == NIL {
            let index = u32::try_from(self.slots.len()).expect("a cap far below 2^32");
            self.slots.push(Slot { generation: 0, prev: NIL, next: NIL, member: Some(member) });
            index
        } else {
            let index = self.free;
            let slot = &mut self.slots[index as usize];
            self.free = slot.next;
            (slot.prev, slot.next, slot.member) = (NIL, NIL, Some(member));
            index
        };
        self.len += 1;
        self.enter(index);
        index
    }

    /// Removes a member that stands among the dead.
    pub fn remove_dead(&mut self, index: u32) -> Member {
        self.unlink_dead(index);
        self.leave_index(index);
        let free = self.free;
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.next = free;
        self.free = index;
        self.len -= 1;
        slot.member.take().expect(LIVE)
    }

    #[inline(always)]
    pub fn get(&self, index: u32) -> &Member {
        let Some(Slot { member: Some(member), .. }) = self.slots.get(index as usize) else {
            unreachable!("{LIVE}")
        };
        member
    }

    #[inline(always)]
    pub fn get_mut(&mut self, index: u32) -> &mut Member {
        let Some(Slot { member: Some(member), .. }) = self.slots.get_mut(index as usize) else {
            unreachable!("{LIVE}")
        };
        member
    }

    pub fn by_id(&self, id: MemberId) -> Option<&Member> {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.member.as_ref()
    }

    pub fn id(&self, index: u32) -> MemberId {
        MemberId { index, generation: self.slots[index as usize].generation }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The numbers of all occupied slots.
    pub fn indices(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter().map(|(id, _)| id.index)
    }

    pub fn iter(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        (0u32..).zip(&self.slots).filter_map(|(index, slot)| {
            Some((MemberId { index, generation: slot.generation }, slot.member.as_ref()?))
        })
    }

    /// Enters a member among the dead, by the time it died. That is the end of the line for whoever dies now.
    pub fn push_dead(&mut self, index: u32) {
        let died = self.get(index).dead_since;
        let (mut prev, mut next) = (self.dead.1, NIL);
        while prev != NIL && self.get(prev).dead_since > died {
            (prev, next) = (self.slots[prev as usize].prev, prev);
        }
        let slot = &mut self.slots[index as usize];
        (slot.prev, slot.next) = (prev, next);
        self.join_dead(prev, index);
        self.join_dead(index, next);
    }

    pub fn unlink_dead(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let (prev, next) = (slot.prev, slot.next);
        (slot.prev, slot.next) = (NIL, NIL);
        self.join_dead(prev, next);
    }

    /// Who has been dead the longest.
    pub fn longest_dead(&self) -> Option<u32> {
        (self.dead.0 != NIL).then_some(self.dead.0)
    }

    /// Who died next after this one.
    pub fn next_dead(&self, index: u32) -> Option<u32> {
        Some(self.slots[index as usize].next).filter(|next| *next != NIL)
    }

    /// Makes two of the dead neighbours; `NIL` stands for either end.
    fn join_dead(&mut self, before: u32, after: u32) {
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.next = after,
            None => self.dead.0 = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.prev = before,
            None => self.dead.1 = before,
        }
    }

    /// Where a hash would like to stand.
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.index.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.index.len() - 1)
    }

    fn enter(&mut self, index: u32) {
        let mut at = self.home(self.get(index).hash);
        while self.index[at] != 0 {
            at = self.after(at);
        }
        self.index[at] = index + 1;
    }

    /// Takes a member out of the index and moves up those behind it, so that no tombstone is left.
    fn leave_index(&mut self, index: u32) {
        let mask = self.index.len() - 1;
        let mut hole = self.home(self.get(index).hash);
        while self.index[hole] != index + 1 {
            hole = self.after(hole);
        }
        let mut at = self.after(hole);
        while let Some(other) = self.index[at].checked_sub(1) {
            let home = self.home(self.get(other).hash);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.index[hole] = 0;
    }
}

/// No slot.
const NIL: u32 = u32::MAX;
/// Slot numbers come from the index, the dead list and the members' timers, which all go with the member.
const LIVE: &str = "a slot number names a member";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;
    use crate::members::Announce;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn member(table: &Table, url: &[u8], died: u64) -> Member {
        let mut member = Member::new(&Announce { url, ..Announce::default() }, table.hash(url), Mono(0));
        member.dead_since = Mono(died);
        member
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        /// Urls come and go in a table with few places, so that probes run into each other and wrap around.
        #[test]
        fn same_as_a_map(ops in proptest::collection::vec((0u8..14, 0u64..50), 1..200)) {
            let mut table = Table::new([1, 2]);
            table.reserve(11);
            let mut model = BTreeMap::new();
            for (name, died) in ops {
                let url = [b'u', name];
                if let Some((index, _)) = model.remove(&name) {
                    prop_assert_eq!(table.find(&url), Some(index));
                    let id = table.id(index);
                    table.remove_dead(index);
                    prop_assert!(table.by_id(id).is_none());
                } else if model.len() < 11 {
                    let index = table.insert(member(&table, &url, died));
                    table.push_dead(index);
                    model.insert(name, (index, died));
                }
                for name in 0..14 {
                    prop_assert_eq!(table.find(&[b'u', name]), model.get(&name).map(|(index, _)| *index));
                }
                let mut deaths: Vec<_> = model.values().map(|(_, died)| *died).collect();
                deaths.sort_unstable();
                let line = std::iter::successors(table.longest_dead(), |i| table.next_dead(*i));
                prop_assert_eq!(line.map(|i| table.get(i).dead_since.0).collect::<Vec<_>>(), deaths);
                prop_assert_eq!(table.len(), model.len());
            }
        }
    }

    #[test]
    fn a_larger_reserve_keeps_everybody() {
        let mut table = Table::new([3, 4]);
        table.reserve(3);
        for n in 0..3 {
            table.insert(member(&table, &[n], 0));
        }
        table.reserve(1000);
        assert!((0..3u32).all(|n| table.find(&[u8::try_from(n).unwrap()]) == Some(n)));
    }
}
