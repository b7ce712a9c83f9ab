//! Callers: BEAM processes that wait in the table of pending requests; see `snex_core::pending`.

use crate::atoms;
use crate::down::Down;
use crate::pool::Slot;
use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Atom, Encoder, Env, LocalPid, Reference, Term};
use snex_core::pending;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The table of one interpreter.
pub type Pending = pending::Pending<Caller, Down>;

/// A process that waits, and the reference by which it knows its message.
pub struct Caller {
    pub pid: LocalPid,
    /// Whether its request is answered item by item.
    pub stream: bool,
    /// Where a stream ran that Python has ended, until the caller has all its items.
    pub slot: Option<Slot>,
    reference: SavedTerm,
    env: OwnedEnv,
    /// Room for output that the caller has not dealt with; made when the request prints for the first time. Closed with
    /// the entry, so that nobody waits for a caller that is gone.
    unread: Option<Arc<Semaphore>>,
}

impl Caller {
    /// The calling process, which waits for a message with `reference`.
    pub fn new(env: Env<'_>, reference: Reference<'_>) -> Self {
        let own = OwnedEnv::new();
        let reference = own.save(*reference);
        Caller { pid: env.pid(), stream: false, slot: None, reference, env: own, unread: None }
    }

    /// Sends `{reference, tag, value}`, the last message. Only from threads that are not the VM's own.
    pub fn finish(mut self, tag: Atom, value: impl FnOnce(Env<'_>) -> Term<'_>) {
        let reference = self.reference.clone();
        // A caller that has died meanwhile needs no answer.
        let _ = self.env.send_and_clear(&self.pid, |env| (reference.load(env), tag, value(env)));
    }

    /// As [`Caller::finish`], with a value that was made beforehand, in an environment of its own: nothing is copied here. More may
    /// follow.
    pub fn send(&self, tag: Atom, mut own: OwnedEnv, value: &SavedTerm) {
        self.env.run(|env| {
            let reference = self.reference.load(env);
            // As above.
            let _ = own.send_and_clear(&self.pid, |env| (reference.in_env(env), tag, value.load(env)));
        });
    }

    /// Sends `{reference, print, value}`, and more may follow. Only from threads that are not the VM's own.
    pub fn print(&self, value: impl FnOnce(Env<'_>) -> Term<'_>) -> bool {
        self.env.run(|own| {
            let reference = self.reference.load(own);
            OwnedEnv::new()
                .send_and_clear(&self.pid, |env| (reference.in_env(env), atoms::print(), value(env)))
                .is_ok()
        })
    }

    /// Room for what the request prints.
    pub fn unread(&mut self) -> Arc<Semaphore> {
        Arc::clone(self.unread.get_or_insert_with(|| Arc::new(Semaphore::new(1))))
    }

    /// The interpreter is down.
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
