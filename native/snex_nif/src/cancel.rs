//! Cancelling requests whose callers have given up: Python is told, is interrupted if its event loop does not
//! respond, and is reported to the owner if it is stuck.

use crate::atoms;
use crate::binary_ref::BinaryRef;
use crate::runtime;
use crate::shared::Shared;
use snex_core::frame::{Frame, Header, Kind};
use snex_core::worker::Worker;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the event loop may take to respond before the first interrupt. A loop that runs awaiting code responds at
/// once.
const PATIENCE: Duration = Duration::from_millis(50);

/// The longest pause between two interrupts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// An interpreter counts as stuck if its event loop has not responded for this long, plus the time allowed for
/// cleanup.
const STUCK: Duration = Duration::from_secs(3);

/// Set in the number of a *probe*: a cancellation of a request that does not exist. A responsive event loop
/// acknowledges it at once.
const PROBE: u64 = 1 << 63;

/// Requests and probes that Python has been told to cancel, and has not acknowledged. Python acknowledges a request
/// when its work has ended.
#[derive(Default)]
pub struct Cancelling(Mutex<BTreeSet<u64>>);

impl Cancelling {
    /// Takes out a request or probe that Python acknowledges. Returns an error if its number has not been used yet.
    pub fn acknowledge(&self, id: u64, requests: u64) -> Result<(), String> {
        let request = id & !PROBE;
        if request == 0 || request > requests {
            return Err(format!("the end of request {request}, which was never made"));
        }
        self.remove(id);
        Ok(())
    }

    fn remove(&self, id: u64) {
        self.ids().remove(&id);
    }

    /// How many there are, probes included.
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

/// Has Python cancel the work of a request. May be called on any thread; does not block.
pub fn cancel(worker: &Arc<Worker<BinaryRef, Shared>>, id: u64) {
    let Some(runtime) = runtime::handle() else { return };
    send(worker, id);
    runtime.spawn(await_end(Arc::clone(worker), id));
}

fn send(worker: &Worker<BinaryRef, Shared>, id: u64) {
    worker.sink.cancelling.insert(id);
    worker.submit(Frame::new(Header::new(Kind::Cancel, id), &[]));
}

/// Waits until the work of a cancelled request has ended. Cleanup may take long while the event loop still responds.
/// Probes tell that from a blocked loop, which is interrupted, and reported to the owner once it counts as stuck.
async fn await_end(worker: Arc<Worker<BinaryRef, Shared>>, id: u64) {
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
            return cancelling.remove(probe);
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
