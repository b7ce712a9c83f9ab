//! Finds the worker of an interpreter's pid.
//!
//! An entry is added when the worker is started. It is removed when the interpreter process has died, and all callers
//! that waited for it have been told.

use crate::interpreter::Interpreter;
use rustler::{LocalPid, ResourceArc};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, PoisonError, RwLock};

static INTERPRETERS: LazyLock<RwLock<HashMap<LocalPid, ResourceArc<Interpreter>>>> =
    LazyLock::new(RwLock::default);

/// The worker of `pid`, if that process is alive.
pub fn find(pid: LocalPid) -> Option<ResourceArc<Interpreter>> {
    known(pid).filter(|interpreter| !interpreter.gone.load(Ordering::Acquire))
}

/// The worker of `pid`, even if that process has just died.
pub fn known(pid: LocalPid) -> Option<ResourceArc<Interpreter>> {
    INTERPRETERS.read().unwrap_or_else(PoisonError::into_inner).get(&pid).cloned()
}

/// All workers.
pub fn all() -> Vec<ResourceArc<Interpreter>> {
    INTERPRETERS.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

/// Adds the worker of `pid`.
pub fn insert(pid: LocalPid, interpreter: ResourceArc<Interpreter>) {
    INTERPRETERS.write().unwrap_or_else(PoisonError::into_inner).insert(pid, interpreter);
}

/// Removes the worker of `pid`.
pub fn remove(pid: LocalPid) {
    let removed = INTERPRETERS.write().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    // Dropped outside of the lock, because that may take long.
    drop(removed);
}
