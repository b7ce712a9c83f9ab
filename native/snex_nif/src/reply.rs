//! Bodies of frames from Python, received into binaries of the VM.

use rustler::OwnedBinary;
use rustler::sys::{ErlNifBinary, enif_alloc_binary, enif_realloc_binary, enif_release_binary};
use snex_core::shared_memory::{CACHE_LINE, lead};
use snex_core::worker::Body;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;

/// How much memory is zeroed at a time, just before it is filled, so that it is still in the processor's cache.
const WINDOW: usize = 256 * 1024;

/// A binary that is being filled from its start. Its memory is not initialized beyond what [`Body::room`] has handed out.
pub struct Reply {
    binary: ErlNifBinary,
    /// Bytes at the start of the binary, before the body.
    lead: usize,
    /// How many bytes of the body have been zeroed here, or filled.
    initialized: usize,
}

// SAFETY: the binary is ours alone, and the VM's allocator may be called on any thread.
unsafe impl Send for Reply {}

impl Reply {
    /// The binary of a body from a pipe, which begins at its start.
    pub fn into_binary(self) -> OwnedBinary {
        self.into_parts().0
    }

    /// A binary with the body, which has to be full, and where in the binary the body begins.
    pub fn into_parts(mut self) -> (OwnedBinary, usize) {
        while self.lead + self.initialized < self.binary.size {
            // Never needed in practice: readers fill the whole body. It keeps this function sound.
            self.room(self.initialized);
        }
        let reply = ManuallyDrop::new(self);
        // SAFETY: the whole binary is initialized. Its ownership moves: `reply`, from which it is read, is not
        // dropped.
        (unsafe { OwnedBinary::from_raw(ptr::read(&reply.binary)) }, reply.lead)
    }
}

impl Body for Reply {
    fn with_length(length: usize) -> Option<Self> {
        let mut binary = MaybeUninit::uninit();
        // SAFETY: `binary` is initialized if the call succeeds, and not read if it fails.
        unsafe {
            (enif_alloc_binary(length, binary.as_mut_ptr()) != 0).then(|| Reply {
                binary: binary.assume_init(),
                lead: 0,
                initialized: 0,
            })
        }
    }

    fn in_step(length: usize, offset: usize) -> Option<Self> {
        let mut reply = Self::with_length(length.checked_add(CACHE_LINE)?)?;
        reply.lead = lead(reply.binary.data.addr(), offset);
        // SAFETY: there is room for the lead, which is less than a cache line.
        unsafe { reply.binary.data.write_bytes(0, reply.lead) };
        // This binary only becomes smaller, which always succeeds.
        reply.grow(length).then_some(reply)
    }

    fn grow(&mut self, length: usize) -> bool {
        // SAFETY: the binary is ours alone, and unchanged if the call fails.
        length
            .checked_add(self.lead)
            .is_some_and(|size| unsafe { enif_realloc_binary(&mut self.binary, size) != 0 })
    }

    fn room(&mut self, from: usize) -> &mut [u8] {
        let from = from.min(self.initialized);
        let until = (self.binary.size - self.lead).min(from + WINDOW);
        // SAFETY: both ranges lie within the binary, after the lead, and the binary is ours alone. The range returned is
        // initialized.
        unsafe {
            let body = self.binary.data.add(self.lead);
            if let Some(fresh) = until.checked_sub(self.initialized) {
                body.add(self.initialized).write_bytes(0, fresh);
                self.initialized = until;
            }
            std::slice::from_raw_parts_mut(body.add(from), until - from)
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: the binary is ours alone; `into_binary` does not drop what it hands on.
        unsafe { enif_release_binary(&mut self.binary) };
    }
}
