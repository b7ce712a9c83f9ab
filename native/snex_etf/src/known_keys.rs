//! A cache of encoded dict keys. Dicts of one kind, such as the rows of a table, mostly share their key objects, so
//! the address of a key finds its encoding.

use crate::encoder::Result;
use crate::output::{Output, no_memory};
use pyo3::prelude::*;

/// The longest encoding that is cached.
const LONGEST: usize = 32;
const SLOTS: usize = 64;
/// How many dicts there have to be before the cache is worth its memory.
const FEW: usize = 8;

struct Slot<'py> {
    /// Keeps the key alive, so that no other object gets its address.
    key: Bound<'py, PyAny>,
    bytes: [u8; LONGEST],
    length: usize,
}

/// Some of the keys so far. The address of a key determines its slot.
#[derive(Default)]
pub struct KnownKeys<'py> {
    dicts: usize,
    slots: Vec<Option<Slot<'py>>>,
}

impl<'py> KnownKeys<'py> {
    /// Called at the beginning of each dict.
    pub fn begin_dict(&mut self) -> Result<()> {
        self.dicts += 1;
        if self.dicts == FEW {
            self.slots.try_reserve_exact(SLOTS).map_err(|_| no_memory())?;
            self.slots.resize_with(SLOTS, || None);
        }
        Ok(())
    }

    /// Writes a key if it is cached; returns whether it was.
    pub fn put(&self, key: &Bound<'py, PyAny>, output: &mut Output<'py>) -> Result<bool> {
        match self.slots.get(place(key)) {
            Some(Some(slot)) if slot.key.as_ptr() == key.as_ptr() => {
                output.put_start(&slot.bytes, slot.length)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Caches a key and its encoding. Only for keys whose class has no code of the user.
    pub fn learn(&mut self, key: &Bound<'py, PyAny>, written: &[u8]) {
        let Some(slot) = self.slots.get_mut(place(key)) else { return };
        let mut bytes = [0; LONGEST];
        let Some(start) = bytes.get_mut(..written.len()) else { return };
        start.copy_from_slice(written);
        *slot = Some(Slot { key: key.clone(), bytes, length: written.len() });
    }
}

/// The slot of a key. The lowest four bits say nothing: objects are at least 16 bytes apart.
fn place(key: &Bound<'_, PyAny>) -> usize {
    (key.as_ptr().addr() >> 4) % SLOTS
}
