//! Memory of the VM for what arrives from Python.

use rustler::OwnedBinary;
use rustler::sys::{ErlNifBinary, enif_alloc_binary, enif_realloc_binary, enif_release_binary};
use snex_core::worker::Body;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;

/// As much is cleared at a time before it is written to: it stays in the processor's cache until then.
const WINDOW: usize = 256 * 1024;

/// A binary that is being filled from its start. Its memory is not initialized beyond what [`Body::room`] has handed out.
pub struct Reply {
    binary: ErlNifBinary,
    /// Bytes from the start that have been written to, by us or by the one who fills it.
    initialized: usize,
}

// SAFETY: the binary is ours alone, and the VM's allocator may be called on any thread.
unsafe impl Send for Reply {}

impl Reply {
    /// The binary, which is full.
    pub fn into_binary(mut self) -> OwnedBinary {
        while self.initialized < self.binary.size {
            // Only for a body that its reader has not filled, which none does.
            self.room(self.initialized);
        }
        let reply = ManuallyDrop::new(self);
        // SAFETY: it is initialized as a whole, and handed on: `reply`, from which it is copied, is not dropped.
        unsafe { OwnedBinary::from_raw(ptr::read(&reply.binary)) }
    }
}

impl Body for Reply {
    fn with_length(length: usize) -> Option<Self> {
        let mut binary = MaybeUninit::uninit();
        // SAFETY: `binary` is written when the call succeeds, and not looked at when it does not.
        unsafe {
            (enif_alloc_binary(length, binary.as_mut_ptr()) != 0)
                .then(|| Reply { binary: binary.assume_init(), initialized: 0 })
        }
    }

    fn grow(&mut self, length: usize) -> bool {
        // SAFETY: the binary is ours alone, and as it was if the call fails.
        unsafe { enif_realloc_binary(&mut self.binary, length) != 0 }
    }

    fn room(&mut self, from: usize) -> &mut [u8] {
        let from = from.min(self.initialized);
        let until = self.binary.size.min(from + WINDOW);
        // SAFETY: both ranges lie within the binary, which is ours alone. What is handed out is initialized.
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
        // SAFETY: it is ours alone, and has not been handed on.
        unsafe { enif_release_binary(&mut self.binary) };
    }
}
