//! Binaries that outlive the NIF call they came with.

use rustler::env::OwnedEnv;
use rustler::{Binary, Term};

/// A binary of the VM, kept alive without a copy while it waits to be written.
pub struct BinaryRef {
    bytes: *const u8,
    length: usize,
    /// Owns the reference to the binary. May be dropped on any thread.
    _env: OwnedEnv,
}

// SAFETY: the bytes belong to a reference-counted binary, which nobody changes: if Erlang code could still append to
// it, taking a reference from a NIF has made it immutable. The environment is only dropped.
unsafe impl Send for BinaryRef {}

impl BinaryRef {
    /// Takes a reference to `term`; `None` when it is not a binary.
    pub fn new(term: Term<'_>) -> Option<Self> {
        let env = OwnedEnv::new();
        let saved = env.save(term);
        let (bytes, length) = env.run(|env| {
            let binary = Binary::from_term(saved.load(env)).ok()?;
            Some((binary.as_slice().as_ptr(), binary.len()))
        })?;
        Some(BinaryRef { bytes, length, _env: env })
    }
}

impl AsRef<[u8]> for BinaryRef {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `_env` refers to the binary, so its bytes stay where they are.
        unsafe { std::slice::from_raw_parts(self.bytes, self.length) }
    }
}
