//! Bodies of frames from Python, received into binaries of the VM.

use rustler::OwnedBinary;
use rustler::sys::{ErlNifBinary, enif_alloc_binary, enif_realloc_binary, enif_release_binary};
use snex_core::worker::Body;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;

/// How much memory is zeroed at a time, just before it is filled, so that it is still in the processor's cache.
const WINDOW: usize = 256 * 1024;

/// A binary that is being filled from its start. Its memory is not initialized beyond what [`Body::room`] has handed out.
pub struct Reply {
    binary: ErlNifBinary,
    /// How many bytes from the start have been zeroed here, or filled.
    initialized: usize,
}

// SAFETY: the binary is ours alone, and the VM's allocator may be called on any thread.
unsafe impl Send for Reply {}

impl Reply {
    /// The binary, which has to be full.
    pub fn into_binary(mut self) -> OwnedBinary {
        while self.initialized < self.binary.size {
            // Never needed in practice: readers fill the whole body. It keeps this function sound.
            self.room(self.initialized);
        }
        let reply = ManuallyDrop::new(self);
        // SAFETY: the whole binary is initialized. Its ownership moves: `reply`, from which it is read, is not
        // dropped.
        unsafe { OwnedBinary::from_raw(ptr::read(&reply.binary)) }
    }
}

impl Body for Reply {
    fn with_length(length: usize) -> Option<Self> {
        let mut binary = MaybeUninit::uninit();
        // SAFETY: `binary` is initialized if the call succeeds, and not read if it fails.
        unsafe {
            (enif_alloc_binary(length, binary.as_mut_ptr()) != 0)
                .then(|| Reply { binary: binary.assume_init(), initialized: 0 })
        }
    }

    fn grow(&mut self, length: usize) -> bool {
        // SAFETY: the binary is ours alone, and unchanged if the call fails.
        unsafe { enif_realloc_binary(&mut self.binary, length) != 0 }
    }

    fn room(&mut self, from: usize) -> &mut [u8] {
        let from = from.min(self.initialized);
        let until = self.binary.size.min(from + WINDOW);
        // SAFETY: both ranges lie within the binary, which is ours alone. The range returned is initialized.
        unsafe {
            if let Some(fresh) = until.checked_sub(self.initialized) {
                self.binary.data.add(self.initialized).write_bytes(0, fresh);
                self.initialized = until;
            }
            std::slice::from_raw_parts_mut(self.binary.data.add(from), until - from)
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: the binary is ours alone; `into_binary` does not drop what it hands on.
        unsafe { enif_release_binary(&mut self.binary) };
    }
}
