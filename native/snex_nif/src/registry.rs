//! The worker of an interpreter's pid.
//!
//! An entry is made by the interpreter process when it starts its worker, and removed when that process is gone and all who
//! waited for it have been told.

use crate::interpreter::Interpreter;
use rustler::{LocalPid, ResourceArc};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, PoisonError, RwLock};

static INTERPRETERS: LazyLock<RwLock<HashMap<LocalPid, ResourceArc<Interpreter>>>> =
    LazyLock::new(RwLock::default);

/// The worker of `pid`, a process that lives.
pub fn find(pid: LocalPid) -> Option<ResourceArc<Interpreter>> {
    known(pid).filter(|interpreter| !interpreter.gone.load(Ordering::Acquire))
}

/// The worker of `pid`, also when that process is gone.
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
    // Outside of the lock: what is dropped with it takes its time.
    drop(removed);
}
