//! Which processes answer calls from Python. A request that such a process makes is caused by the call that it
//! answers: Python may be waiting for that call, and run nothing else.

use rustler::{Atom, LocalPid, Term};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::atoms;
use crate::registry;

/// How many of `$callers` are searched. Tasks are rarely nested deeper.
const MOST_CALLERS: usize = 32;

/// The calls of one interpreter that are being answered, by the pid of the answering process.
#[derive(Default)]
pub struct Answering {
    /// The size of the table. Each request reads this first, and locks the table only if it is not 0.
    count: AtomicUsize,
    calls: Mutex<BTreeMap<LocalPid, u64>>,
}

impl Answering {
    /// How many processes answer a call.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The call that `pid` answers, or else the call of the nearest of its `$callers` that answers one; 0 if there is
    /// none.
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

    /// From now on, `pid` answers this call, or makes the items of this source.
    pub fn insert(&self, pid: LocalPid, call: u64) {
        let mut calls = self.table();
        calls.insert(pid, call);
        self.count.store(calls.len(), Ordering::Release);
    }

    /// Removes all processes that answer `call`.
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

/// From now on, `process` answers this call from Python.
#[rustler::nif]
fn call_begin(interpreter: LocalPid, process: LocalPid, call: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.answering.insert(process, call);
    }
    atoms::ok()
}

/// `process` no longer answers a call.
#[rustler::nif]
fn call_end(interpreter: LocalPid, process: LocalPid) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.answering.remove(process);
    }
    atoms::ok()
}
