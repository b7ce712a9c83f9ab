//! Remembers the keys of maps, so that a repeated key is written as a reference to Python's memo.
//!
//! The maps of a list mostly have the same keys. With references, Python creates each key only once or twice. This halves the
//! time of loading the pickle, and saves memory for every further map.

use super::{MemoIndex, Pickle};
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// How many keys are remembered, a power of two. A key replaces one whose hash has the same slot.
const SLOTS: usize = 64;

/// The longest key that is remembered, in bytes.
const LONGEST: usize = 64;

/// Keys are remembered from this size of the pickle on. A smaller one has too little to save.
const WORTH: usize = 1024;

/// A key that has been written.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Where its opcode is in the pickle.
    start: usize,
    /// Set when the key is written for the second time, so that keys that occur only once take no place in the memo.
    memo: Option<MemoIndex>,
}

/// The keys that a pickle remembers, by hash. Allocated when there is a first one.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Option<Known>>);

impl Keys {
    /// Forgets the memo indexes from `memo` on. The first occurrence of a key may have been removed as well. That needs no
    /// action: [`Pickle::key`] compares the bytes at `start`, and if an equal key is there now, it serves as well.
    pub(super) fn rewind(&mut self, memo: MemoIndex) {
        for known in self.0.iter_mut().flatten() {
            known.memo = known.memo.filter(|index| *index < memo);
        }
    }
}

impl<B: AsRef<[u8]>> Pickle<B> {
    /// A `str` that is the key of a `dict`, and likely to be repeated in other dicts.
    pub fn key(&mut self, key: &str) {
        if key.len() > LONGEST || self.out.len() < WORTH {
            return self.str(key);
        }
        let mut hasher = FxHasher::default();
        hasher.write(key.as_bytes());
        let slot = hasher.finish() as usize % SLOTS;
        if self.keys.0.is_empty() {
            self.keys.0.resize(SLOTS, None);
        }
        let known = self.keys.0[slot].filter(|known| self.is_at(known.start, key));
        match known {
            Some(Known { memo: Some(index), .. }) => self.recall(index),
            Some(Known { start, memo: None }) => {
                self.str(key);
                let memo = Some(self.memoize());
                self.keys.0[slot] = Some(Known { start, memo });
            }
            None => {
                self.keys.0[slot] = Some(Known { start: self.out.len(), memo: None });
                self.str(key);
            }
        }
    }

    /// Whether the pickle has a short `str` with this content at `start`.
    fn is_at(&self, start: usize, key: &str) -> bool {
        let written = self.out.get(start + 1..).unwrap_or_default();
        written.split_first().is_some_and(|(length, content)| {
            usize::from(*length) == key.len() && content.starts_with(key.as_bytes())
        })
    }
}
