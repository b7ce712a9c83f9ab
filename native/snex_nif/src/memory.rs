//! Binaries in memory that Python has handed over.

use crate::resource_count::{Counted, CountedKind};
use crate::runtime;
use rustler::{Binary, Env, Resource, ResourceArc};
use snex_core::handover;

/// Keeps memory mapped for as long as a binary refers to it.
pub struct Memory {
    mapped: Option<handover::Memory>,
    _counted: Counted,
}

impl Resource for Memory {}

impl Memory {
    /// Takes over the mapping. [`Memory::binary`] makes binaries of it.
    pub fn new(mapped: handover::Memory) -> ResourceArc<Self> {
        ResourceArc::new(Memory { mapped: Some(mapped), _counted: Counted::new(CountedKind::Memory) })
    }

    /// A binary whose bytes are the memory itself.
    pub fn binary<'a>(memory: &ResourceArc<Self>, env: Env<'a>) -> Binary<'a> {
        memory.make_binary(env, |memory| memory.mapped.as_ref().map_or(&[][..], AsRef::as_ref))
    }
}

impl Drop for Memory {
    /// A scheduler may run this, and unmapping large memory takes long: a task does it.
    fn drop(&mut self) {
        if let (Some(mapped), Some(runtime)) = (self.mapped.take(), runtime::handle()) {
            runtime.spawn(async move { drop(mapped) });
        }
    }
}
