//! What the NIFs and the tasks of one interpreter share.
//!
//! The worker owns it. A worker outlives its interpreter process for as long as a task or a NIF call uses it. Each
//! field says who changes it, and when entries are removed.

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

/// The state of one interpreter. The fields up to `cleanup_timeout` are set at the start and never change, except
/// that an interpreter may join a pool later.
pub struct Shared {
    /// The interpreter process. When it ends, the worker is stopped.
    pub owner: LocalPid,
    /// The process that starts the interpreter, and runs its init script.
    pub starter: LocalPid,
    /// The process that answers calls from Python. Linked to the owner.
    pub calls: LocalPid,
    /// The process that receives Python's output and log events. Linked to the owner.
    pub output: LocalPid,
    /// Where output goes, as a term in external format.
    pub output_to: Kept,
    /// The high-water mark of the queue towards Python, in bytes.
    pub high: usize,
    /// The encoding options that apply where a call gives none.
    pub encoding: Options,
    /// Whether replies may create atoms.
    pub create_atoms: bool,
    /// Which functions Python may call.
    pub allow: Allow,
    /// Recognises functions that Elixir has handed to Python. `None` if Python may call any function.
    pub signer: Option<Arc<Signer>>,
    /// The pool that the interpreter belongs to, if any, and the slots of the requests that run here. Set when the
    /// interpreter joins the pool.
    pub membership: Membership,
    /// Receives memory that Python hands over. `None` without shared memory.
    pub handover: Option<Handover>,
    /// How many requests may be under way.
    pub max_in_flight: usize,
    /// Whether Python reads the same clock as the VM.
    pub shares_clock: bool,
    /// How long a cancelled request may clean up before Python interrupts it again.
    pub cleanup_timeout: Duration,
    /// Whether anyone but the starter may submit requests. Set once, by the owner.
    pub open: AtomicBool,
    /// Requests under way. Added by the caller's NIF. Removed by the answer, by a caller that gives up or dies, or by
    /// the end of the worker.
    pub pending: Pending,
    /// Cancelled requests. Added when they are cancelled, removed when Python acknowledges that.
    pub cancelling: Cancelling,
    /// Processes that answer calls from Python. The process `calls` adds them when it starts them, and removes them
    /// when they have ended.
    pub answering: Answering,
    /// Elixir streams that Python iterates. Added by the feeder. Removed by the feeder or its death, or when Python
    /// closes the stream.
    pub sources: Sources,
    /// Processes that this worker monitors. Added with their first request or stream, removed when they die.
    pub watched: Watched,
    /// Objects, and environments other than the root, that Python keeps for this VM. Added with their first handle,
    /// removed when the last handle has given its count back.
    pub alive: Alive,
    /// Each dropped handle sends its key here, to the task that gives counts back to Python. The task ends with the
    /// worker.
    pub drops: UnboundedSender<Key>,
    /// The end of what Python code has printed to standard error, for the report of a crash.
    pub last_errors: Mutex<VecDeque<u8>>,
    /// For each stream, one permit: taken for each chunk of output, and given back when the output process has
    /// acknowledged it. Closed by `close_output`.
    pub unread: [Semaphore; 2],
    /// A permit for each log event that the output process has acknowledged. Closed by `close_output`.
    pub logged: Semaphore,
    /// Counted in `resources_count`, for leak tests.
    pub _counted: Counted,
}

impl Shared {
    /// The output process is gone, or the worker has ended: nothing waits for acknowledgements any more.
    pub fn close_output(&self) {
        self.unread.iter().for_each(Semaphore::close);
        self.logged.close();
    }

    /// Keeps the last [`LAST_ERRORS`] bytes printed to standard error.
    pub fn remember(&self, errors: &[u8]) {
        let mut last = self.last_errors.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = errors.get(errors.len().saturating_sub(LAST_ERRORS)..).unwrap_or_default();
        let surplus = (last.len() + fresh.len()).saturating_sub(LAST_ERRORS);
        last.drain(..surplus);
        last.extend(fresh);
    }
}
