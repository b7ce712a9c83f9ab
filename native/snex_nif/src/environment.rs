//! Handles of environments: all they do is tell when the last reference to one is gone.

use crate::atoms;
use crate::held::Held;
use crate::live::{Live, Of};
use crate::registry;
use crate::runtime;
use crate::shared::Shared;
use rustler::env::OwnedEnv;
use rustler::{Atom, LocalPid, Resource, ResourceArc};
use snex_core::frame::Kind;
use snex_core::handshake;
use snex_core::worker::Worker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// The number of the latest environment of this VM: no two have the same, whichever interpreters they belong to.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The number of an environment that is about to be made.
pub fn next_id() -> u64 {
    LATEST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Environments that Python has, and whether they stay when nobody refers to them. An environment that is dropped and
/// destroyed at once leaves it once. A tree grows by a little each time; a hash table would copy itself now and then, on a
/// scheduler.
#[derive(Default)]
pub struct Alive(Mutex<BTreeMap<u64, bool>>);

impl Alive {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids().len()
    }

    fn insert(&self, id: u64) {
        self.ids().insert(id, false);
    }

    fn keep(&self, id: u64) {
        if let Some(kept) = self.ids().get_mut(&id) {
            *kept = true;
        }
    }

    /// Whether it was there.
    fn remove(&self, id: u64) -> bool {
        self.ids().remove(&id).is_some()
    }

    /// Whether it was there, and may go.
    fn collect(&self, id: u64) -> bool {
        let mut ids = self.ids();
        ids.get(&id) == Some(&false) && ids.remove(&id).is_some()
    }

    fn ids(&self) -> MutexGuard<'_, BTreeMap<u64, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle. Dropped by the garbage collector, on whichever thread it runs: nothing here blocks.
pub struct Environment {
    id: u64,
    drops: UnboundedSender<u64>,
    _live: Live,
}

impl Resource for Environment {}

impl Environment {
    /// The handle of an environment that Python is about to make.
    pub fn new(id: u64, shared: &Shared) -> Self {
        shared.alive.insert(id);
        let live = Live::new(Of::Environment);
        Environment { id, drops: shared.drops.clone(), _live: live }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // Fails when the interpreter is gone, and its environments with it.
        let _ = self.drops.send(self.id);
    }
}

/// Stands on this node for an environment of another one: when the garbage collector drops it, `{snex_env_dropped, token}`
/// is sent to a process here, which sees to the rest.
pub struct Proxy {
    keeper: LocalPid,
    token: u64,
    _live: Live,
}

impl Resource for Proxy {}

/// Where proxies go that are dropped: to a task that sends their messages, for the thread that drops them may be a scheduler's.
static DROPPED_PROXIES: LazyLock<UnboundedSender<(LocalPid, u64)>> = LazyLock::new(|| {
    let (drops, mut dropped) = mpsc::unbounded_channel();
    if let Some(runtime) = runtime::handle() {
        runtime.spawn(async move {
            while let Some((keeper, token)) = dropped.recv().await {
                // A keeper that is gone needs no message.
                let _ = OwnedEnv::new().send_and_clear(&keeper, |_| (atoms::snex_env_dropped(), token));
            }
        });
    }
    drops
});

impl Drop for Proxy {
    fn drop(&mut self) {
        // Fails only when the VM goes down.
        let _ = DROPPED_PROXIES.send((self.keeper, self.token));
    }
}

/// Makes a stand-in; see [`Proxy`].
#[rustler::nif]
fn environment_proxy(keeper: LocalPid, token: u64) -> ResourceArc<Proxy> {
    ResourceArc::new(Proxy { keeper, token, _live: Live::new(Of::Proxy) })
}

/// From now on the environment stays until it is destroyed, if it is still there.
#[rustler::nif]
fn environment_keep(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.alive.keep(id);
    }
    atoms::ok()
}

/// Has Python forget an environment; `ok` also when there is none. Sent at once, not in a batch: a request that comes after
/// it does not find the environment any more.
#[rustler::nif]
fn environment_destroy(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter)
        && interpreter.worker.sink.alive.remove(id)
    {
        forget(&interpreter.worker, &[id]);
    }
    atoms::ok()
}

/// Sends the numbers of dropped environments to Python, as many at a time as have come together.
pub async fn forget_dropped(worker: Weak<Worker<Held, Shared>>, mut dropped: UnboundedReceiver<u64>) {
    const BATCH: usize = 4096;
    let mut batch = Vec::with_capacity(BATCH);
    while dropped.recv_many(&mut batch, BATCH).await > 0 {
        let Some(worker) = worker.upgrade() else { return };
        batch.retain(|id| worker.sink.alive.collect(*id));
        forget(&worker, &batch);
        batch.clear();
    }
}

fn forget(worker: &Worker<Held, Shared>, environments: &[u64]) {
    if !environments.is_empty()
        && let Ok(frame) = handshake::control_frame(Kind::DropEnvs, &environments)
    {
        // A worker that is gone has forgotten everything.
        worker.submit(frame);
    }
}
