//! An ordered map whose copies share all but what was changed in them: the next view of ten thousand
//! services costs a few hundred pointers, and what two views differ in is found without a look at
//! what they share.
//!
//! The entries stand on shelves in the order of their keys; a change copies one shelf.

use std::{cmp::Ordering, sync::Arc};

/// A shelf with more entries becomes two.
const SHELF: usize = 64;

/// An ordered map; see the module.
#[derive(Clone, Debug)]
pub(super) struct Catalog<K, V> {
    /// None of them is empty.
    shelves: Vec<Arc<Vec<(K, V)>>>,
    len: usize,
}

/// A key under which two catalogs differ, with what stands there in the earlier and in the later.
pub(super) type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<K, V> Default for Catalog<K, V> {
    fn default() -> Self {
        Self { shelves: Vec::new(), len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> Catalog<K, V> {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What stands under a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let (shelf, place) = self.find(key);
        let place = place.ok()?;
        Some(&self.shelves[shelf][place].1)
    }

    /// What stands under a key, to be changed.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (shelf, place) = self.find(key);
        let place = place.ok()?;
        Some(&mut Arc::make_mut(&mut self.shelves[shelf])[place].1)
    }

    /// Puts an entry in its place; returns what stood there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (shelf, place) = self.find(&key);
        let Some(shared) = self.shelves.get_mut(shelf) else {
            self.shelves.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let entries = Arc::make_mut(shared);
        match place {
            Ok(place) => Some(std::mem::replace(&mut entries[place].1, value)),
            Err(place) => {
                entries.insert(place, (key, value));
                self.len += 1;
                self.split(shelf);
                None
            }
        }
    }

    /// Takes an entry away.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (shelf, place) = self.find(key);
        let place = place.ok()?;
        let (_, value) = Arc::make_mut(&mut self.shelves[shelf]).remove(place);
        self.len -= 1;
        self.join(shelf);
        Some(value)
    }

    /// Every entry, in the order of the keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shelves.iter().flat_map(|shelf| shelf.iter()).map(|(key, value)| (key, value))
    }

    /// Every key, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Every value, in the order of the keys.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries after those, all at the beginning, for whose keys `is_before` holds.
    pub(super) fn after(&self, is_before: impl Fn(&K) -> bool) -> impl Iterator<Item = (&K, &V)> {
        let passed = self.shelves.partition_point(|shelf| is_before(&shelf[0].0));
        let first = passed.saturating_sub(1);
        let here = self.shelves.get(first);
        let skipped = here.map_or(0, |shelf| shelf.partition_point(|(key, _)| is_before(key)));
        let entries = self.shelves[first..].iter().flat_map(|shelf| shelf.iter());
        entries.skip(skipped).map(|(key, value)| (key, value))
    }

    /// Where this and an earlier catalog differ, in the order of the keys.
    pub(super) fn since<'a>(
        &'a self,
        before: &'a Self,
        same: impl Fn(&V, &V) -> bool + 'a,
    ) -> impl Iterator<Item = Difference<'a, K, V>> {
        let (mut old, mut new) = (Cursor::new(before), Cursor::new(self));
        std::iter::from_fn(move || {
            loop {
                while old.shares(&new) {
                    (old, new) = (old.next_shelf(), new.next_shelf());
                }
                let (was, is) = step(&mut old, &mut new);
                let (key, _) = was.or(is)?;
                let (was, is) = (was.map(|(_, was)| was), is.map(|(_, is)| is));
                if !was.zip(is).is_some_and(|(was, is)| same(was, is)) {
                    return Some((key, was, is));
                }
            }
        })
    }

    /// On which shelf a key stands or belongs, and where there.
    fn find(&self, key: &K) -> (usize, Result<usize, usize>) {
        let shelf = self.shelves.partition_point(|shelf| shelf[0].0 <= *key).saturating_sub(1);
        let place = |entries: &Arc<Vec<(K, V)>>| entries.binary_search_by(|(known, _)| known.cmp(key));
        (shelf, self.shelves.get(shelf).map_or(Err(0), place))
    }

    fn split(&mut self, shelf: usize) {
        if self.shelves[shelf].len() > SHELF {
            let rest = Arc::make_mut(&mut self.shelves[shelf]).split_off(SHELF / 2);
            self.shelves.insert(shelf + 1, Arc::new(rest));
        }
    }

    /// Leaves no empty shelf, nor two with little beside each other.
    fn join(&mut self, shelf: usize) {
        if self.shelves[shelf].is_empty() {
            self.shelves.remove(shelf);
            return;
        }
        let Some(next) = self.shelves.get(shelf + 1) else { return };
        if self.shelves[shelf].len() + next.len() <= SHELF / 2 {
            let next = self.shelves.remove(shelf + 1);
            Arc::make_mut(&mut self.shelves[shelf]).extend(next.iter().cloned());
        }
    }
}

type Entry<'a, K, V> = (&'a K, &'a V);
type Step<'a, K, V> = (Option<Entry<'a, K, V>>, Option<Entry<'a, K, V>>);

/// The next entry of either, or of both if they have the same key.
fn step<'a, K: Ord, V>(old: &mut Cursor<'a, K, V>, new: &mut Cursor<'a, K, V>) -> Step<'a, K, V> {
    let order = match (old.entry(), new.entry()) {
        (_, None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some((was, _)), Some((is, _))) => was.cmp(is),
    };
    let was = if order.is_le() { old.take() } else { None };
    (was, if order.is_ge() { new.take() } else { None })
}

/// A place in a catalog.
struct Cursor<'a, K, V> {
    shelves: &'a [Arc<Vec<(K, V)>>],
    place: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn new(catalog: &'a Catalog<K, V>) -> Self {
        Self { shelves: &catalog.shelves, place: 0 }
    }

    /// Whether both are at the beginning of the same shelf.
    fn shares(&self, other: &Self) -> bool {
        let both = self.shelves.first().zip(other.shelves.first());
        self.place == 0 && other.place == 0 && both.is_some_and(|(one, other)| Arc::ptr_eq(one, other))
    }

    fn next_shelf(&self) -> Self {
        Self { shelves: &self.shelves[1..], place: 0 }
    }

    fn entry(&self) -> Option<Entry<'a, K, V>> {
        let (key, value) = &self.shelves.first()?[self.place];
        Some((key, value))
    }

    fn take(&mut self) -> Option<Entry<'a, K, V>> {
        let entry = self.entry()?;
        self.place += 1;
        if self.place == self.shelves[0].len() {
            *self = self.next_shelf();
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    /// Whatever is done to it, it is an ordered map, and what changed is what `since` says.
    #[test]
    fn it_is_a_map_and_knows_what_changed() {
        let mut random = StdRng::seed_from_u64(7);
        let (mut catalog, mut model) = (Catalog::default(), BTreeMap::new());
        for round in 0..400 {
            let (before, known) = (catalog.clone(), model.clone());
            for _ in 0..random.random_range(0..40) {
                let (key, value) = (random.random_range(0..2000), random.random_range(0..3));
                // It grows, and later shrinks to nothing.
                if random.random_range(0..400) > round {
                    assert_eq!(catalog.insert(key, value), model.insert(key, value));
                } else {
                    assert_eq!(catalog.remove(&key), model.remove(&key));
                }
                assert_eq!(catalog.get(&key), model.get(&key));
            }
            assert_eq!(catalog.len(), model.len());
            assert!(catalog.iter().eq(&model));
            assert!(catalog.shelves.iter().all(|shelf| (1..=SHELF).contains(&shelf.len())));
            let keys: BTreeSet<i32> = known.keys().chain(model.keys()).copied().collect();
            let expect = keys.iter().map(|key| (key, known.get(key), model.get(key)));
            let expect: Vec<_> = expect.filter(|(_, was, is)| was != is).collect();
            assert_eq!(catalog.since(&before, |one, other| one == other).collect::<Vec<_>>(), expect);
        }
    }

    #[test]
    fn copies_share_what_did_not_change() {
        let mut catalog = Catalog::default();
        for key in 0..10_000 {
            catalog.insert(key, 0);
        }
        let before = catalog.clone();
        *catalog.get_mut(&5_000).unwrap() = 1;
        let pairs = before.shelves.iter().zip(&catalog.shelves);
        assert_eq!(pairs.filter(|(one, other)| Arc::ptr_eq(one, other)).count(), before.shelves.len() - 1);
        assert_eq!(catalog.since(&before, |one, other| one == other).count(), 1);
        assert_eq!(
            catalog.after(|key| *key < 9_998).map(|(key, _)| *key).collect::<Vec<_>>(),
            [9_998, 9_999]
        );
        assert_eq!(Catalog::<u32, u32>::default().after(|_| true).count(), 0);
    }
}
