//! Requests that wait: for an answer from Python, or for room in the queue towards it.
//!
//! Ownership: an entry belongs to the table from the moment its request waits until one of three takes it out: the answer, the
//! caller that gives up or dies, or the end of the interpreter. Whoever takes it out is the only one that deals with the caller.
//! Messages are sent while the table is locked: a caller that gives up and finds its entry gone knows that the message is
//! in its mailbox already, and can remove it.

use crate::atoms;
use crate::down::Down;
use rustc_hash::FxHashMap;
use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Atom, Encoder, Env, LocalPid, Term};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// A process that waits, and the reference by which it knows its message.
pub struct Caller {
    pid: LocalPid,
    reference: SavedTerm,
    env: OwnedEnv,
    /// Room for output that the caller has not dealt with; made when the request prints for the first time. Closed with
    /// the entry, so that nobody waits for a caller that is gone.
    unread: Option<Arc<Semaphore>>,
}

impl Caller {
    /// The calling process, which waits for a message with `reference`.
    pub fn new(env: Env<'_>, reference: Term<'_>) -> Self {
        let own = OwnedEnv::new();
        let reference = own.save(reference);
        Caller { pid: env.pid(), reference, env: own, unread: None }
    }

    /// Sends `{reference, tag, value}`, the last message. Only from threads that are not the VM's own.
    fn finish(mut self, tag: Atom, value: impl FnOnce(Env<'_>) -> Term<'_>) {
        let reference = self.reference.clone();
        // A caller that has died meanwhile needs no answer.
        let _ = self.env.send_and_clear(&self.pid, |env| (reference.load(env), tag, value(env)));
    }

    /// Sends `{reference, tag, value}`, and more may follow. Only from threads that are not the VM's own.
    fn send(&self, tag: Atom, value: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        self.env.run(|own| {
            let reference = self.reference.load(own);
            OwnedEnv::new().send_and_clear(&self.pid, |env| (reference.in_env(env), tag, value(env))).is_ok()
        })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(unread) = &self.unread {
            unread.close();
        }
    }
}

/// The table of one interpreter.
#[derive(Default)]
pub struct Pending {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    callers: FxHashMap<u64, Caller>,
    /// Set once nothing will be answered any more.
    down: Option<Down>,
}

impl Pending {
    /// Adds a request; refuses when the interpreter is down.
    pub fn insert(&self, id: u64, caller: Caller) -> Result<(), Down> {
        let mut state = self.state();
        match &state.down {
            Some(down) => Err(down.clone()),
            None => {
                state.callers.insert(id, caller);
                Ok(())
            }
        }
    }

    /// Takes a request out. Whether it was still there.
    pub fn remove(&self, id: u64) -> bool {
        self.state().callers.remove(&id).is_some()
    }

    /// Sends the answer to a request to its caller, if it still waits.
    pub fn answer(&self, id: u64, tag: Atom, value: impl FnOnce(Env<'_>) -> Term<'_>) {
        let mut state = self.state();
        if let Some(caller) = state.callers.remove(&id) {
            caller.finish(tag, value);
        }
    }

    /// Room for what a request prints; `None` when nobody waits for it.
    pub fn unread(&self, id: u64) -> Option<Arc<Semaphore>> {
        let mut state = self.state();
        let caller = state.callers.get_mut(&id)?;
        Some(Arc::clone(caller.unread.get_or_insert_with(|| Arc::new(Semaphore::new(1)))))
    }

    /// Sends what a request printed to its caller; whether there is one.
    pub fn print(&self, id: u64, value: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        self.state().callers.get(&id).is_some_and(|caller| caller.send(atoms::print(), value))
    }

    /// Takes out every request of a process that is gone, and returns their numbers.
    pub fn abandon(&self, pid: LocalPid) -> Vec<u64> {
        let mut state = self.state();
        let abandoned: Vec<u64> =
            state.callers.iter().filter(|(_, caller)| caller.pid == pid).map(|(id, _)| *id).collect();
        for id in &abandoned {
            state.callers.remove(id);
        }
        abandoned
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.state().callers.len()
    }

    /// Tells every caller that the interpreter is down. The first reason stays.
    pub fn fail_all(&self, down: Down) {
        let mut state = self.state();
        let down = state.down.get_or_insert(down).clone();
        for (_, caller) in state.callers.drain() {
            caller.finish(atoms::down(), |env| down.encode(env));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The table is consistent between any two statements that hold it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
