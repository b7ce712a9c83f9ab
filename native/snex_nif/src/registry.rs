//! The worker of an interpreter's pid.
//!
//! An entry is made by the interpreter process when it starts its worker and removed when that process is gone, so a pid that
//! is found belongs to a process that lives or has just died.

use crate::interpreter::Interpreter;
use rustler::{LocalPid, ResourceArc};
use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

static INTERPRETERS: LazyLock<RwLock<HashMap<LocalPid, ResourceArc<Interpreter>>>> =
    LazyLock::new(RwLock::default);

/// The worker of `pid`.
pub fn find(pid: LocalPid) -> Option<ResourceArc<Interpreter>> {
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

/// Removes the worker of `pid`, and hands it back so that it is dropped outside of the lock.
pub fn remove(pid: LocalPid) -> Option<ResourceArc<Interpreter>> {
    INTERPRETERS.write().unwrap_or_else(PoisonError::into_inner).remove(&pid)
}
