//! Locks and flags that [loom](https://docs.rs/loom) can replace by its own; see `tests/interleavings.rs`.

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicBool, atomic::Ordering};
