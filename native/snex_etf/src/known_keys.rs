//! Keys of dicts as they were encoded before. Dicts of one kind, such as the rows of a table, mostly have the same objects for
//! keys, so a look at the address tells what to write.

use crate::encoder::Result;
use crate::output::{Output, no_memory};
use pyo3::prelude::*;

/// Longer ones are encoded each time.
const LONGEST: usize = 32;
const SLOTS: usize = 64;
/// For fewer dicts it would not be worth the memory.
const FEW: usize = 8;

struct Slot<'py> {
    /// Kept alive, so that nothing else can have its address.
    key: Bound<'py, PyAny>,
    bytes: [u8; LONGEST],
    length: usize,
}

/// Some of the keys so far, each in the slot that its address tells.
#[derive(Default)]
pub struct KnownKeys<'py> {
    dicts: usize,
    slots: Vec<Option<Slot<'py>>>,
}

impl<'py> KnownKeys<'py> {
    /// One more dict begins.
    pub fn begin_dict(&mut self) -> Result<()> {
        self.dicts += 1;
        if self.dicts == FEW {
            self.slots.try_reserve_exact(SLOTS).map_err(|_| no_memory())?;
            self.slots.resize_with(SLOTS, || None);
        }
        Ok(())
    }

    /// Writes a key, if it is known.
    pub fn put(&self, key: &Bound<'py, PyAny>, output: &mut Output<'py>) -> Result<bool> {
        match self.slots.get(place(key)) {
            Some(Some(slot)) if slot.key.as_ptr() == key.as_ptr() => {
                output.put_start(&slot.bytes, slot.length)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Keeps a key, whose class has no code of a user's in it, and what has been written for it.
    pub fn learn(&mut self, key: &Bound<'py, PyAny>, written: &[u8]) {
        let Some(slot) = self.slots.get_mut(place(key)) else { return };
        let mut bytes = [0; LONGEST];
        let Some(start) = bytes.get_mut(..written.len()) else { return };
        start.copy_from_slice(written);
        *slot = Some(Slot { key: key.clone(), bytes, length: written.len() });
    }
}

/// Objects lie 16 bytes apart at least.
fn place(key: &Bound<'_, PyAny>) -> usize {
    (key.as_ptr().addr() >> 4) % SLOTS
}
