//! Handles of environments: all they do is tell when the last reference to one is gone.

use crate::atoms;
use crate::held::Held;
use crate::registry;
use crate::sink::News;
use rustler::{Atom, LocalPid, Resource, ResourceArc};
use snex_core::frame::Kind;
use snex_core::handshake;
use snex_core::worker::Worker;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

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

/// Has Python forget an environment; `ok` also when there is none. Sent at once, not in a batch: a request that comes after
/// it does not find the environment any more.
#[rustler::nif]
fn environment_destroy(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        forget(&interpreter.worker, &[id]);
    }
    atoms::ok()
}

/// Sends the numbers of dropped environments to Python, as many at a time as have come together.
pub async fn forget_dropped(worker: Weak<Worker<Held, News>>, mut dropped: UnboundedReceiver<u64>) {
    const BATCH: usize = 4096;
    let mut batch = Vec::with_capacity(BATCH);
    while dropped.recv_many(&mut batch, BATCH).await > 0 {
        let Some(worker) = worker.upgrade() else { return };
        forget(&worker, &batch);
        batch.clear();
    }
}

fn forget(worker: &Worker<Held, News>, environments: &[u64]) {
    if let Ok(frame) = handshake::control_frame(Kind::DropEnvs, &environments) {
        // A worker that is gone has forgotten everything.
        worker.submit(frame);
    }
}
