//! What the NIFs and the tasks of one interpreter share.
//!
//! It belongs to the worker, which outlives the interpreter process by as long as a task or a NIF call still uses it. Each field
//! says who writes to it, and when it ends.

use crate::answering::Answering;
use crate::caller::Pending;
use crate::cancel::Cancelling;
use crate::interpreter::Watched;
use crate::kept::Kept;
use crate::options::Options;
use crate::pool::Membership;
use crate::resource_count::Counted;
use crate::source::Sources;
use rustler::LocalPid;
use snex_core::allow::Allow;
use snex_core::handles::{Alive, Key};
use snex_core::handover::Handover;
use snex_core::signing::Signer;
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

/// Bytes of standard error that are kept for the report of a crash.
const LAST_ERRORS: usize = 4 * 1024;

/// The state of one interpreter. The first fields are set at its start, and never change.
pub struct Shared {
    /// The interpreter process. When it ends, the worker is stopped.
    pub owner: LocalPid,
    /// The process that starts it, and runs the init script.
    pub starter: LocalPid,
    /// The process that runs what Python calls. Linked to the owner.
    pub calls: LocalPid,
    /// The process that prints what Python prints. Linked to the owner.
    pub output: LocalPid,
    /// Where it goes, as a term in external format.
    pub output_to: Kept,
    /// The high mark of what is queued towards Python, in bytes.
    pub high: usize,
    /// How values look in Python where a call does not say.
    pub encoding: Options,
    /// Whether replies may create atoms.
    pub create_atoms: bool,
    /// Which functions Python may call.
    pub allow: Allow,
    /// Recognises functions that Elixir has handed to Python. `None` where Python may call all.
    pub signer: Option<Arc<Signer>>,
    /// The pool that the interpreter belongs to, and what runs here for it.
    pub membership: Membership,
    /// Where memory arrives that Python hands over. `None` where there is no shared memory.
    pub handover: Option<Handover>,
    /// How many requests may be under way.
    pub max_in_flight: usize,
    /// Whether Python reads the same clock as the VM.
    pub shares_clock: bool,
    /// How long Python does not interrupt a request once more, so that it can clean up.
    pub cleanup_timeout: Duration,
    /// Whether anyone but the starter may submit requests. Set once, by the owner.
    pub open: AtomicBool,
    /// Requests under way. Each is added by its caller's NIF, and taken out by its answer, by the caller that gives up or dies,
    /// or by the end of the worker.
    pub pending: Pending,
    /// Requests that nobody waits for any more. Added when they are cancelled, taken out when Python has noticed.
    pub cancelling: Cancelling,
    /// Processes that answer calls of Python's. Added by the process `calls` when it starts them, and taken out by it when they
    /// have ended.
    pub answering: Answering,
    /// Streams of Elixir's that Python iterates. Each is added by its feeder, and taken out by it, by Python that wants no more, or by the
    /// feeder's death.
    pub sources: Sources,
    /// Processes whose end this worker is told of. Added with their first request, taken out when they end.
    pub watched: Watched,
    /// Environments, besides the root, and objects that Python has for this VM. Added with their handles, taken out when the last
    /// of these has given its count back.
    pub alive: Alive,
    /// Counts to be given back: every handle that is dropped sends its key to the task that tells Python, which ends with
    /// the worker.
    pub drops: UnboundedSender<Key>,
    /// The last that was printed to standard error from Python's own code, for the report of a crash.
    pub last_errors: Mutex<VecDeque<u8>>,
    /// Room for chunks of output that the output process has not acknowledged: one for each stream. Closed when nobody prints
    /// any more.
    pub unread: [Semaphore; 2],
    /// Log events that the output process has dealt with. Closed with the others.
    pub logged: Semaphore,
    /// Counts it.
    pub _counted: Counted,
}

impl Shared {
    /// Nobody prints any more what Python prints outside of calls, or logs: it need not wait for that.
    pub fn close_output(&self) {
        self.unread.iter().for_each(Semaphore::close);
        self.logged.close();
    }

    /// Keeps the end of what was printed to standard error.
    pub fn remember(&self, errors: &[u8]) {
        let mut last = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = errors.get(errors.len().saturating_sub(LAST_ERRORS)..).unwrap_or_default();
        let surplus = (last.len() + fresh.len()).saturating_sub(LAST_ERRORS);
        last.drain(..surplus);
        last.extend(fresh);
    }
}
