//! Requests whose callers have given up: Python is told, interrupted if it does not listen, and reported if it is stuck.

use crate::atoms;
use crate::binary_ref::BinaryRef;
use crate::runtime;
use crate::shared::Shared;
use snex_core::frame::{Frame, Header, Kind};
use snex_core::worker::Worker;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long Python may take to notice before it is interrupted. Code that awaits notices at once.
const PATIENCE: Duration = Duration::from_millis(50);

/// The longest pause between two interrupts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long an event loop may hear nothing, beyond the time that Python leaves for cleanup, before the interpreter counts as stuck.
const STUCK: Duration = Duration::from_secs(3);

/// Set in the number of a request that was never made, which Python answers at once.
const PROBE: u64 = 1 << 63;

/// Requests that Python has been told to cancel and has not said that it did.
#[derive(Default)]
pub struct Cancelling(Mutex<BTreeSet<u64>>);

impl Cancelling {
    /// Python says that it has noticed. An error when there was no request of that number so far.
    pub fn noticed_by_python(&self, id: u64, requests: u64) -> Result<(), String> {
        let request = id & !PROBE;
        if request == 0 || request > requests {
            return Err(format!("the end of request {request}, which was never made"));
        }
        self.noticed(id);
        Ok(())
    }

    fn noticed(&self, id: u64) {
        self.ids().remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids().len()
    }

    fn insert(&self, id: u64) {
        self.ids().insert(id);
    }

    fn contains(&self, id: u64) -> bool {
        self.ids().contains(&id)
    }

    fn ids(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has Python give up the work of a request. From any thread; does not block.
pub fn cancel(worker: &Arc<Worker<BinaryRef, Shared>>, id: u64) {
    let Some(runtime) = runtime::handle() else { return };
    send(worker, id);
    runtime.spawn(see_to(Arc::clone(worker), id));
}

fn send(worker: &Worker<BinaryRef, Shared>, id: u64) {
    worker.sink.cancelling.insert(id);
    worker.submit(Frame::new(Header::new(Kind::Cancel, id), &[]));
}

/// Waits for the end of a request's work. Code that awaits may take its time to clean up; what has to be told apart from that
/// is an event loop that hears nothing. A second cancellation tells the two apart: it is of a request that was never made, which a loop that hears answers at once.
async fn see_to(worker: Arc<Worker<BinaryRef, Shared>>, id: u64) {
    let probe = id | PROBE;
    send(&worker, probe);
    let stuck = worker.sink.cleanup_timeout.saturating_add(STUCK);
    let mut deaf_since = Instant::now();
    let mut pause = PATIENCE;
    let mut reported = false;
    loop {
        tokio::time::sleep(pause).await;
        let cancelling = &worker.sink.cancelling;
        let ended = worker.is_closed() || !cancelling.contains(id);
        let deaf = !ended && cancelling.contains(probe);
        if reported && !deaf {
            reported = false;
            worker.sink.send(&worker.sink.owner, (atoms::snex_unstuck(), id));
        }
        if ended {
            return cancelling.noticed(probe);
        }
        if deaf {
            worker.interrupt(id);
        } else {
            deaf_since = Instant::now();
            send(&worker, probe);
        }
        if !reported && deaf_since.elapsed() >= stuck {
            reported = true;
            worker.sink.send(&worker.sink.owner, (atoms::snex_stuck(), id));
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
