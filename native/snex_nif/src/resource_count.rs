//! Counts what is alive, for leak tests. Objects that are rarely made count themselves. Entries that are made by each
//! request or call are counted only when somebody asks, so that they cost nothing.

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

/// A field of objects that count themselves: while it lives, its kind counts one more.
pub struct Counted(CountedKind);

impl Counted {
    /// Counts one more of `kind`.
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

/// What is alive in this VM.
#[derive(NifMap, Default)]
#[rustler(encode)]
struct Resources {
    /// Resources of interpreters; the states shared by their tasks; handles of environments and of objects; proxies
    /// of handles on other nodes; memory that Python has handed over.
    interpreters: usize,
    workers: usize,
    environments: usize,
    objects: usize,
    proxies: usize,
    memories: usize,
    /// Registered interpreters, and what is in their tables: pending requests; requests being cancelled; processes
    /// that answer calls; streams that Python iterates; monitored processes; environments and objects that Python
    /// keeps for this VM.
    registered: usize,
    pending: usize,
    cancelling: usize,
    answering: usize,
    sources: usize,
    watched: usize,
    alive: usize,
    /// Pools, and the requests that run in them.
    pools: usize,
    running: usize,
}

/// Counts what is alive in this VM.
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
