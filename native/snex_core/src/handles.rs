//! Handles of environments and objects, which live in Python.
//!
//! Python counts the VM's handles of each. A handle owns one count, and gives it back exactly once: when it is dropped or
//! released, whichever comes first. While an entry is *kept*, the counts of dropped handles are not given back but *owed*,
//! until the entry is released or destroyed. So for each key, Python's count is always the number of handles that have not
//! given back theirs, plus what is owed, plus what is on its way to Python.
//!
//! The methods of [`Alive`] return how many counts to give back now; the caller tells Python.

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use std::collections::BTreeMap;
use std::sync::PoisonError;

/// What a handle refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The variables that code runs with. Numbered by the VM.
    Environment = 0,
    /// Any value. Numbered by Python.
    Object = 1,
}

/// Identifies an environment or object. The number of an environment is never reused, that of an object not while Python
/// counts handles of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Environment or object.
    pub kind: Kind,
    /// Its number.
    pub id: u64,
}

/// One count that Python holds for the VM.
#[derive(Debug)]
pub struct Count {
    key: Key,
    released: AtomicBool,
}

impl Count {
    /// The environment or object that is counted.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether [`Alive::release`] has given this count back, so that a drop of the handle must not.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

struct Entry {
    /// Handles that have not given back their counts.
    live: u64,
    /// Counts of handles that were dropped while the entry was kept. 0 unless it is kept.
    owed: u64,
    kept: bool,
}

/// The environments and objects of one interpreter that the VM has handles of. The maps are trees, because hash tables would
/// rehash now and then, on a scheduler.
pub struct Alive(Mutex<[BTreeMap<u64, Entry>; 2]>);

impl Default for Alive {
    fn default() -> Self {
        Alive(Mutex::new([BTreeMap::new(), BTreeMap::new()]))
    }
}

impl Alive {
    /// Adds a handle, and returns its count.
    pub fn receive(&self, key: Key) -> Count {
        let mut entries = self.entries();
        let entry =
            of_kind(&mut entries, key.kind).entry(key.id).or_insert(Entry { live: 0, owed: 0, kept: false });
        entry.live += 1;
        Count { key, released: AtomicBool::new(false) }
    }

    /// Notes that a handle has been dropped which was not released.
    #[must_use]
    pub fn dropped(&self, key: Key) -> u64 {
        let mut entries = self.entries();
        let entries = of_kind(&mut entries, key.kind);
        // There is no entry once the environment has been destroyed.
        let Some(entry) = entries.get_mut(&key.id) else { return 0 };
        entry.live = entry.live.saturating_sub(1);
        if entry.kept {
            entry.owed += 1;
            return 0;
        }
        if entry.live == 0 {
            entries.remove(&key.id);
        }
        1
    }

    /// Keeps an entry, if there is one: counts of dropped handles are owed from now on.
    pub fn keep(&self, key: Key) {
        if let Some(entry) = of_kind(&mut self.entries(), key.kind).get_mut(&key.id) {
            entry.kept = true;
        }
    }

    /// Gives back what is owed, and the count `own`, unless it has been given back before. The entry is no longer kept.
    #[must_use]
    pub fn release(&self, key: Key, own: Option<&Count>) -> u64 {
        let mut entries = self.entries();
        let entries = of_kind(&mut entries, key.kind);
        let own = u64::from(own.is_some_and(|count| !count.released.swap(true, Ordering::AcqRel)));
        let Some(entry) = entries.get_mut(&key.id) else { return 0 };
        entry.live = entry.live.saturating_sub(own);
        entry.kept = false;
        let owed = std::mem::take(&mut entry.owed);
        if entry.live == 0 {
            entries.remove(&key.id);
        }
        own + owed
    }

    /// Gives back all counts at once. Handles that still live give nothing back when they are dropped. Only for a key that is
    /// never received again.
    #[must_use]
    pub fn destroy(&self, key: Key) -> u64 {
        of_kind(&mut self.entries(), key.kind).remove(&key.id).map_or(0, |entry| entry.live + entry.owed)
    }

    /// The number of entries of a kind.
    pub fn len_of(&self, kind: Kind) -> usize {
        of_kind(&mut self.entries(), kind).len()
    }

    fn entries(&self) -> MutexGuard<'_, [BTreeMap<u64, Entry>; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of_kind(entries: &mut [BTreeMap<u64, Entry>; 2], kind: Kind) -> &mut BTreeMap<u64, Entry> {
    let [environments, objects] = entries;
    match kind {
        Kind::Environment => environments,
        Kind::Object => objects,
    }
}

/// Counts to be given back in one frame. Counts of the same key are added up.
#[derive(Debug, Default)]
pub struct Drops(BTreeMap<Key, u64>);

impl Drops {
    /// Adds `count`, which may be 0.
    pub fn add(&mut self, key: Key, count: u64) {
        if count > 0 {
            *self.0.entry(key).or_default() += count;
        }
    }

    /// Takes everything as the body of a `DROP` frame; `None` if there is nothing. Empty afterwards.
    ///
    /// ```
    /// use snex_core::handles::{Drops, Key, Kind};
    /// let mut drops = Drops::default();
    /// let key = Key { kind: Kind::Object, id: 0x102 };
    /// drops.add(key, 1);
    /// drops.add(key, 2);
    /// assert_eq!(drops.take_body().unwrap(), [1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
    /// assert_eq!(drops.take_body(), None);
    /// ```
    pub fn take_body(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(self.0.len() * 13);
        while let Some((key, mut left)) = self.0.pop_first() {
            // A count that does not fit into 32 bits takes several records.
            while left > 0 {
                let count = u32::try_from(left).unwrap_or(u32::MAX);
                body.push(key.kind as u8);
                body.extend_from_slice(&key.id.to_le_bytes());
                body.extend_from_slice(&count.to_le_bytes());
                left -= u64::from(count);
            }
        }
        (!body.is_empty()).then_some(body)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    const ENVIRONMENT: Key = Key { kind: Kind::Environment, id: 7 };
    const OBJECT: Key = Key { kind: Kind::Object, id: 7 };

    #[test]
    fn a_handle_gives_its_count_back_when_it_is_dropped() {
        let alive = Alive::default();
        alive.receive(OBJECT);
        alive.receive(OBJECT);
        assert_eq!((alive.dropped(OBJECT), alive.len_of(Kind::Object)), (1, 1));
        assert_eq!((alive.dropped(OBJECT), alive.len_of(Kind::Object)), (1, 0));
        assert_eq!(alive.dropped(OBJECT), 0);
    }

    #[test]
    fn what_is_kept_owes_the_counts_until_it_is_released() {
        let alive = Alive::default();
        let last = alive.receive(OBJECT);
        alive.receive(OBJECT);
        alive.keep(OBJECT);
        assert_eq!(alive.dropped(OBJECT), 0);
        assert_eq!(alive.release(OBJECT, Some(&last)), 2);
        assert!(last.is_released());
        assert_eq!((alive.release(OBJECT, Some(&last)), alive.len_of(Kind::Object)), (0, 0));
    }

    #[test]
    fn what_is_kept_is_there_without_handles_and_can_be_received_again() {
        let alive = Alive::default();
        alive.receive(OBJECT);
        alive.keep(OBJECT);
        assert_eq!((alive.dropped(OBJECT), alive.len_of(Kind::Object)), (0, 1));
        alive.receive(OBJECT);
        assert_eq!(alive.release(OBJECT, None), 1);
        assert_eq!((alive.dropped(OBJECT), alive.len_of(Kind::Object)), (1, 0));
    }

    #[test]
    fn what_is_destroyed_gives_everything_back_and_nothing_afterwards() {
        let alive = Alive::default();
        let one = alive.receive(ENVIRONMENT);
        alive.receive(ENVIRONMENT);
        alive.keep(ENVIRONMENT);
        assert_eq!(alive.dropped(ENVIRONMENT), 0);
        assert_eq!(alive.destroy(ENVIRONMENT), 2);
        assert_eq!(alive.release(ENVIRONMENT, Some(&one)), 0);
        assert_eq!((alive.destroy(ENVIRONMENT), alive.len_of(Kind::Environment)), (0, 0));
    }

    #[test]
    fn an_environment_and_an_object_of_the_same_number_are_two() {
        let alive = Alive::default();
        alive.receive(ENVIRONMENT);
        alive.receive(OBJECT);
        assert_eq!(alive.destroy(ENVIRONMENT), 1);
        assert_eq!((alive.len_of(Kind::Environment), alive.len_of(Kind::Object)), (0, 1));
    }

    #[test]
    fn a_count_that_does_not_fit_into_a_record_takes_several() {
        let mut drops = Drops::default();
        drops.add(OBJECT, u64::from(u32::MAX) + 5);
        drops.add(ENVIRONMENT, 0);
        let body = drops.take_body().unwrap();
        assert_eq!(body.len(), 26);
        assert_eq!((&body[9..13], &body[22..26]), (&[255; 4][..], &[5, 0, 0, 0][..]));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Receive(Key),
        Drop(Index),
        Keep(Key),
        Release(Index),
        ReleaseGone(Key),
        Destroy(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = (any::<bool>(), 0..3u64).prop_map(|(object, id)| {
            let kind = if object { Kind::Object } else { Kind::Environment };
            Key { kind, id }
        });
        prop_oneof![
            4 => key.clone().prop_map(Step::Receive),
            4 => any::<Index>().prop_map(Step::Drop),
            1 => key.clone().prop_map(Step::Keep),
            2 => any::<Index>().prop_map(Step::Release),
            1 => key.prop_map(Step::ReleaseGone),
            1 => (0..3u64).prop_map(Step::Destroy),
        ]
    }

    /// What Python counts, and what the VM must not have given back yet.
    #[derive(Default)]
    struct Model {
        python: BTreeMap<Key, u64>,
        owed: BTreeMap<Key, u64>,
        kept: BTreeMap<Key, bool>,
        destroyed: Vec<Key>,
        handles: Vec<Count>,
    }

    impl Model {
        fn given_back(&mut self, key: Key, count: u64) {
            let python = self.python.entry(key).or_default();
            assert!(*python >= count, "{key:?}: {count} given back of {python}");
            *python -= count;
        }

        fn exists(&self, key: Key) -> bool {
            self.python.get(&key).is_some_and(|count| *count > 0)
        }

        fn step(&mut self, alive: &Alive, step: &Step) {
            match step {
                Step::Receive(key) if self.destroyed.contains(key) => (),
                Step::Receive(key) => {
                    *self.python.entry(*key).or_default() += 1;
                    self.handles.push(alive.receive(*key));
                }
                Step::Drop(_) | Step::Release(_) if self.handles.is_empty() => (),
                Step::Drop(index) => self.drop(alive, index.index(self.handles.len())),
                Step::Keep(key) => {
                    alive.keep(*key);
                    if self.exists(*key) {
                        self.kept.insert(*key, true);
                    }
                }
                Step::Release(index) => {
                    let handle = &self.handles[index.index(self.handles.len())];
                    let key = handle.key();
                    let own = u64::from(!handle.is_released() && !self.destroyed.contains(&key));
                    let count = alive.release(key, Some(handle));
                    assert!(handle.is_released());
                    self.released(key, count, own);
                }
                Step::ReleaseGone(key) => {
                    let count = alive.release(*key, None);
                    self.released(*key, count, 0);
                }
                Step::Destroy(id) => {
                    let key = Key { kind: Kind::Environment, id: *id };
                    let count = alive.destroy(key);
                    self.given_back(key, count);
                    assert!(!self.exists(key));
                    self.kept.remove(&key);
                    self.owed.remove(&key);
                    self.destroyed.push(key);
                }
            }
        }

        fn drop(&mut self, alive: &Alive, position: usize) {
            let handle = self.handles.swap_remove(position);
            let key = handle.key();
            if handle.is_released() {
                return;
            }
            let count = alive.dropped(key);
            let kept = self.kept.get(&key) == Some(&true);
            if kept {
                *self.owed.entry(key).or_default() += 1;
            }
            assert_eq!(count, u64::from(!kept && !self.destroyed.contains(&key)));
            self.given_back(key, count);
        }

        fn released(&mut self, key: Key, count: u64, own: u64) {
            assert_eq!(count, own + self.owed.remove(&key).unwrap_or(0));
            self.kept.remove(&key);
            self.given_back(key, count);
        }

        fn check(&self, alive: &Alive) {
            for (key, python) in &self.python {
                let live = self
                    .handles
                    .iter()
                    .filter(|handle| handle.key() == *key && !handle.is_released())
                    .count() as u64;
                let owed = self.owed.get(key).copied().unwrap_or(0);
                let expected = if self.destroyed.contains(key) { 0 } else { live + owed };
                assert_eq!(*python, expected, "{key:?}");
            }
            for kind in [Kind::Environment, Kind::Object] {
                let there = self.python.iter().filter(|(key, count)| key.kind == kind && **count > 0).count();
                assert_eq!(alive.len_of(kind), there);
            }
        }
    }

    proptest! {
        #[test]
        fn each_count_is_given_back_exactly_once(steps in prop::collection::vec(step(), 0..60)) {
            let alive = Alive::default();
            let mut model = Model::default();
            for step in &steps {
                model.step(&alive, step);
                model.check(&alive);
            }
            // In the end nothing is left but what is kept.
            while !model.handles.is_empty() {
                model.drop(&alive, 0);
            }
            model.check(&alive);
            for id in 0..3 {
                model.step(&alive, &Step::Destroy(id));
                model.step(&alive, &Step::ReleaseGone(Key { kind: Kind::Object, id }));
            }
            prop_assert!(model.python.values().all(|count| *count == 0));
            prop_assert_eq!(alive.len_of(Kind::Environment) + alive.len_of(Kind::Object), 0);
        }
    }
}
