//! How much of each kind lives, for tests that look for leaks. Objects that are made seldom count themselves; what a request
//! or a call adds to is counted by looking, so that it costs nothing there.

use crate::pool;
use crate::registry;
use rustler::NifMap;
use snex_core::handles::Kind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The kinds of objects that count themselves.
#[derive(Clone, Copy)]
pub enum CountedKind {
    Interpreter,
    Worker,
    Environment,
    Object,
    Proxy,
    Memory,
}

static COUNTS: [AtomicUsize; 6] = [const { AtomicUsize::new(0) }; 6];

/// A field of an object that counts: there is one more of its kind for as long as this lives.
pub struct Counted(CountedKind);

impl Counted {
    /// One more.
    pub fn new(kind: CountedKind) -> Self {
        count(kind).fetch_add(1, Ordering::Relaxed);
        Counted(kind)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        count(self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

fn count(kind: CountedKind) -> &'static AtomicUsize {
    let [interpreters, workers, environments, objects, proxies, memories] = &COUNTS;
    match kind {
        CountedKind::Interpreter => interpreters,
        CountedKind::Worker => workers,
        CountedKind::Environment => environments,
        CountedKind::Object => objects,
        CountedKind::Proxy => proxies,
        CountedKind::Memory => memories,
    }
}

/// What lives in this VM.
#[derive(NifMap, Default)]
#[rustler(encode)]
struct Resources {
    /// Resources of interpreters; what their tasks share; handles of environments and objects, proxies of
    /// handles on other nodes, and memory that Python has handed over.
    interpreters: usize,
    workers: usize,
    environments: usize,
    objects: usize,
    proxies: usize,
    memories: usize,
    /// In the tables of the interpreters that are registered: requests that wait, requests to be cancelled, processes that answer
    /// calls, streams that Python iterates, processes that are watched, environments and objects that Python has for this VM.
    registered: usize,
    pending: usize,
    cancelling: usize,
    answering: usize,
    sources: usize,
    watched: usize,
    alive: usize,
    /// Pools, and requests that count in one.
    pools: usize,
    running: usize,
}

/// How much of each kind lives.
#[rustler::nif(schedule = "DirtyIo")]
fn resources_count() -> Resources {
    let own = |kind| count(kind).load(Ordering::Relaxed);
    let mut resources = Resources {
        interpreters: own(CountedKind::Interpreter),
        workers: own(CountedKind::Worker),
        environments: own(CountedKind::Environment),
        objects: own(CountedKind::Object),
        proxies: own(CountedKind::Proxy),
        memories: own(CountedKind::Memory),
        pools: pool::len(),
        ..Resources::default()
    };
    for interpreter in registry::all() {
        let shared = &interpreter.worker.sink;
        resources.registered += 1;
        resources.pending += shared.pending.len();
        resources.cancelling += shared.cancelling.len();
        resources.answering += shared.answering.len();
        resources.sources += shared.sources.len();
        resources.watched += shared.watched.len();
        resources.running += shared.membership.len();
        resources.alive += shared.alive.len_of(Kind::Environment) + shared.alive.len_of(Kind::Object);
    }
    resources
}
