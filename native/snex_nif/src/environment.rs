//! Handles of environments: all they do is tell when the last reference to one is gone.

use crate::atoms;
use crate::registry;
use rustler::{Atom, LocalPid, Resource, ResourceArc};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::UnboundedSender;

/// A handle. Dropped by the garbage collector, on whichever thread it runs: nothing here blocks.
pub struct Environment {
    id: u64,
    collect: AtomicBool,
    drops: UnboundedSender<u64>,
}

impl Resource for Environment {}

impl Environment {
    pub fn new(id: u64, drops: UnboundedSender<u64>) -> Self {
        Environment { id, collect: AtomicBool::new(true), drops }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if self.collect.load(Ordering::Relaxed) {
            // Fails when the interpreter is gone, and its environments with it.
            let _ = self.drops.send(self.id);
        }
    }
}

/// From now on the environment stays until it is destroyed.
#[rustler::nif]
fn environment_keep(handle: ResourceArc<Environment>) -> Atom {
    handle.collect.store(false, Ordering::Relaxed);
    atoms::ok()
}

/// Has Python forget an environment; `ok` also when there is none.
#[rustler::nif]
fn environment_destroy(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let _ = interpreter.worker.sink.drops.send(id);
    }
    atoms::ok()
}
