//! Which processes answer calls of Python's. What such a process asks of Python itself has been caused by its call: Python may be
//! waiting for it, and run nothing else.

use rustler::{Atom, LocalPid, Term};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::atoms;
use crate::registry;

/// How far `$callers` is looked at. Tasks are rarely nested deeper.
const MOST_CALLERS: usize = 32;

/// The calls of one interpreter that are being answered, by the process that does.
#[derive(Default)]
pub struct Answering {
    /// As many as there are in the table: requests look here first, and mostly no further.
    count: AtomicUsize,
    calls: Mutex<BTreeMap<LocalPid, u64>>,
}

impl Answering {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The call that a process answers, or the nearest of its `$callers` that answers one; 0 where there is none.
    pub fn cause(&self, pid: LocalPid, callers: Option<Term<'_>>) -> u64 {
        if self.len() == 0 {
            return 0;
        }
        let calls = self.table();
        if let Some(call) = calls.get(&pid) {
            return *call;
        }
        let mut rest = callers;
        for _ in 0..MOST_CALLERS {
            let Some(Ok((caller, others))) = rest.map(Term::list_get_cell) else { break };
            if let Some(call) = caller.decode().ok().and_then(|pid: LocalPid| calls.get(&pid)) {
                return *call;
            }
            rest = Some(others);
        }
        0
    }

    /// From now on, this process answers this call, or makes the items of this source.
    pub fn insert(&self, pid: LocalPid, call: u64) {
        let mut calls = self.table();
        calls.insert(pid, call);
        self.count.store(calls.len(), Ordering::Release);
    }

    /// The processes that answer a call do so no longer.
    pub fn forget(&self, call: u64) {
        let mut calls = self.table();
        calls.retain(|_, of| *of != call);
        self.count.store(calls.len(), Ordering::Release);
    }

    fn remove(&self, pid: LocalPid) {
        let mut calls = self.table();
        calls.remove(&pid);
        self.count.store(calls.len(), Ordering::Release);
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<LocalPid, u64>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `process` answers this call of Python's from now on.
#[rustler::nif]
fn call_begin(interpreter: LocalPid, process: LocalPid, call: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.answering.insert(process, call);
    }
    atoms::ok()
}

/// It has ended.
#[rustler::nif]
fn call_end(interpreter: LocalPid, process: LocalPid) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.answering.remove(process);
    }
    atoms::ok()
}
