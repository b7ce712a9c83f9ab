//! Callers: the Erlang processes that wait in the table of pending requests (`snex_core::pending`).

use crate::atoms;
use crate::down::Down;
use crate::pool::Slot;
use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Atom, Encoder, Env, LocalPid, Reference, Term};
use snex_core::pending;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The pending requests of one interpreter.
pub type Pending = pending::Pending<Caller, Down>;

/// A waiting process, and the reference that marks the messages to it.
pub struct Caller {
    pub pid: LocalPid,
    /// Whether the request is a stream, answered item by item.
    pub stream: bool,
    /// The slot of a stream that has ended in Python, kept until the caller has all its items.
    pub slot: Option<Slot>,
    reference: SavedTerm,
    env: OwnedEnv,
    /// One permit, taken for each chunk of output and given back when the caller has acknowledged it. Made when the
    /// request first prints. Closed with the entry, so that nobody waits for a caller that is gone.
    unread: Option<Arc<Semaphore>>,
}

impl Caller {
    /// The calling process, which waits for a message with `reference`.
    pub fn new(env: Env<'_>, reference: Reference<'_>) -> Self {
        let own = OwnedEnv::new();
        let reference = own.save(*reference);
        Caller { pid: env.pid(), stream: false, slot: None, reference, env: own, unread: None }
    }

    /// Sends `{reference, tag, value}` as the last message. Must not be called on one of the VM's own threads.
    pub fn finish(mut self, tag: Atom, value: impl FnOnce(Env<'_>) -> Term<'_>) {
        let reference = self.reference.clone();
        // Fails if the caller has died.
        let _ = self.env.send_and_clear(&self.pid, |env| (reference.load(env), tag, value(env)));
    }

    /// Sends `{reference, tag, value}`; more messages may follow. The value has been built in `own`, so nothing is
    /// copied here. Must not be called on one of the VM's own threads.
    pub fn send(&self, tag: Atom, mut own: OwnedEnv, value: &SavedTerm) {
        self.env.run(|env| {
            let reference = self.reference.load(env);
            // As above.
            let _ = own.send_and_clear(&self.pid, |env| (reference.in_env(env), tag, value.load(env)));
        });
    }

    /// Sends `{reference, print, value}`; more messages may follow. Must not be called on one of the VM's own
    /// threads.
    pub fn print(&self, value: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        self.env.run(|own| {
            let reference = self.reference.load(own);
            OwnedEnv::new()
                .send_and_clear(&self.pid, |env| (reference.in_env(env), atoms::print(), value(env)))
                .is_ok()
        })
    }

    /// The permit for output of the request.
    pub fn unread(&mut self) -> Arc<Semaphore> {
        Arc::clone(self.unread.get_or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// Tells the caller that the interpreter is down.
    pub fn fail(self, down: &Down) {
        self.finish(atoms::down(), |env| down.encode(env));
    }
}

impl pending::Waiter for Caller {
    type Process = LocalPid;

    fn process(&self) -> LocalPid {
        self.pid
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(unread) = &self.unread {
            unread.close();
        }
    }
}
