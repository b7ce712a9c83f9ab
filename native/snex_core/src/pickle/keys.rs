//! Keys of maps that have been written before.
//!
//! The maps of a list mostly have the same keys. Python makes each key once, if the pickle says that it is the same one: that
//! saves half of the time of loading it, and its memory for every map but the first.

use super::{MemoIndex, Pickle};
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Keys that are remembered: a power of two. One that falls on the place of another takes it.
const SLOTS: usize = 64;

/// Longer keys are not remembered.
const LONGEST: usize = 64;

/// In a pickle of fewer bytes there is nothing to be saved.
const WORTH: usize = 1024;

/// A key that was written once, or is in Python's memo.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Where its opcode stands in the pickle.
    start: usize,
    /// Kept when it was written for the second time, so that keys which occur once cost Python nothing.
    memo: Option<MemoIndex>,
}

/// The keys that a pickle remembers. Nothing is allocated before the first.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Option<Known>>);

impl Keys {
    /// Forgets what was kept from an index of the memo on. What was written for the first time may be gone as well: if something
    /// equal stands in its place, that does as well.
    pub(super) fn rewind(&mut self, memo: MemoIndex) {
        for known in self.0.iter_mut().flatten() {
            known.memo = known.memo.filter(|index| *index < memo);
        }
    }
}

impl<B: AsRef<[u8]>> Pickle<B> {
    /// A `str` that is the key of a `dict`, and probably of others as well.
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

    /// Whether a short `str` with this content was written at a place.
    fn is_at(&self, start: usize, key: &str) -> bool {
        let written = self.out.get(start + 1..).unwrap_or_default();
        written.split_first().is_some_and(|(length, content)| {
            usize::from(*length) == key.len() && content.starts_with(key.as_bytes())
        })
    }
}
