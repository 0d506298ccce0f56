//! Maps and lists in order, each in one vector.
//!
//! The standard library's ordered tree and its sorts are compiled anew for every type they are used with, at several
//! kilobytes a time; our maps are small, and mostly filled all at once or from the end. So there is one sort, of
//! places in a list, which every list shares. Pure; nothing here knows what it keeps.

use std::borrow::Borrow;
use std::cmp::Ordering;

/// A map whose pairs lie in the order of their keys. To look up is a binary search; to insert in the middle moves
/// what is behind, so many are best brought together, by `collect` or `extend`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sorted<K, V> {
    pairs: Vec<(K, V)>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Sorted<K, V> {
        Sorted { pairs: Vec::new() }
    }
}

impl<K: Ord, V> Sorted<K, V> {
    /// The value of `key`.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.pairs.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    /// The value of `key`, to change it.
    #[must_use]
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        self.pairs.get_mut(place).map(|(_, value)| value)
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// The value of `key`; the default value is put there first if there is none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = match self.place(&key) {
            Ok(place) => place,
            Err(place) => {
                self.pairs.insert(place, (key, V::default()));
                place
            }
        };
        &mut self.pairs[place].1
    }

    /// Sets the value of `key`.
    pub fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(place) => self.pairs[place].1 = value,
            Err(place) => self.pairs.insert(place, (key, value)),
        }
    }

    /// Takes `key` out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let place = self.place(key).ok()?;
        Some(self.pairs.remove(place).1)
    }

    /// Keeps only the pairs that `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.pairs.retain(|(key, _)| keep(key));
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.pairs.iter().map(|(key, value)| (key, value))
    }

    /// All pairs, by key, their values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.pairs.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.pairs.binary_search_by(|(have, _)| have.borrow().cmp(key))
    }
}

impl<K: Ord, V> Extend<(K, V)> for Sorted<K, V> {
    /// Of several values for one key, the last stays.
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        let before = self.pairs.len();
        self.pairs.extend(pairs);
        if self.pairs.len() > before {
            sort(&mut self.pairs, |(a, _), (b, _)| a.cmp(b));
            self.pairs.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    std::mem::swap(later, kept);
                }
                same
            });
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Sorted<K, V> {
        let mut sorted = Sorted::default();
        sorted.extend(pairs);
        sorted
    }
}

/// Sorts `items`; equal ones stay in their order.
pub fn sort<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let mut order = places(items.len(), &|a, b| compare(&items[a], &items[b]));
    for place in 0..items.len() {
        // What belongs here may have been swapped away already; its way is in the places done.
        let mut from = order[place];
        while from < place {
            from = order[from];
        }
        order[place] = from;
        items.swap(place, from);
    }
}

/// The numbers below `len` in the order that `compare` gives them.
fn places(len: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..len).collect();
    places.sort_unstable_by(|&a, &b| compare(a, b).then(a.cmp(&b)));
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_tree(steps in prop::collection::vec((0..5_u8, 0..20_u8, any::<u16>()), 0..200)) {
            let (mut ours, mut tree) = (Sorted::default(), BTreeMap::new());
            for (what, key, value) in steps {
                match what {
                    0 => {
                        ours.insert(key, value);
                        tree.insert(key, value);
                    }
                    1 => prop_assert_eq!(ours.remove(&key), tree.remove(&key)),
                    2 => {
                        *ours.or_default(key) ^= 1;
                        *tree.entry(key).or_default() ^= 1;
                    }
                    3 => {
                        let many = [(key, value), (7, 0), (key, value ^ 1)];
                        ours.extend(many);
                        tree.extend(many);
                    }
                    _ => {
                        ours.retain(|k| *k != key);
                        tree.retain(|k, _| *k != key);
                    }
                }
                prop_assert_eq!(ours.get(&key), tree.get(&key));
                prop_assert_eq!(ours.contains_key(&7), tree.contains_key(&7));
                prop_assert!(ours.iter().eq(tree.iter()) && ours.iter_mut().eq(tree.iter_mut()));
                prop_assert_eq!((ours.len(), ours.is_empty()), (tree.len(), tree.is_empty()));
            }
        }

        #[test]
        fn sorts_and_leaves_equals_alone(mut items in prop::collection::vec((0..9_u8, any::<u8>()), 0..60)) {
            let mut std = items.clone();
            std.sort_by_key(|item| item.0);
            sort(&mut items, |a, b| a.0.cmp(&b.0));
            prop_assert_eq!(items, std);
        }
    }
}
