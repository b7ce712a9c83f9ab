//! The shared memory of a worker: copying to it, and giving its memory back to the system.

use super::inbound::Inbound;
use super::{Sink, Worker};
use crate::frame::{Frame, Header, Kind, Part};
use crate::shared_memory::{Arena, PIECE, SlotReport, Slots, WORTH, drop_record, lead, read_slot_reports};
use nix::sys::resource::{Resource, getrlimit};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long free memory is kept for the next slot before it is given back to the system.
pub(super) const IDLE: Duration = Duration::from_secs(2);

/// Bytes that are given back before other tasks get their turn.
const SWEEP: u64 = 64 * PIECE as u64;

/// The largest size of a file. A process that exceeds it gets SIGXFSZ, which by default kills it.
fn file_size_limit() -> io::Result<u64> {
    let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
    Ok(limit)
}

/// Where in its slot a part begins: it is copied faster to the place of a cache line that it comes from. But Python reads it
/// there, so the numbers in a buffer have to be aligned.
fn lead_in_slot(part: Part, bytes: &[u8]) -> usize {
    match lead(0, bytes.as_ptr().addr()) {
        lead if part == Part::Pickle || lead.is_multiple_of(align_of::<u64>()) => lead,
        _ => 0,
    }
}

/// The arenas towards Python and from Python.
pub(super) struct SharedMemory {
    to: Arc<Arena>,
    from: Arc<Arena>,
    /// The slots towards Python. The writer task reserves them and sweeps; the task that reads from Python frees them.
    slots: Mutex<Slots>,
    /// Set before all memory is given back. The writer task may be copying just then, and looks here after each piece.
    given_back: AtomicBool,
}

impl SharedMemory {
    /// Arenas of `size` bytes, or of the largest size of a file, if that is less.
    pub(super) fn new(size: u64) -> io::Result<Self> {
        let size = size.min(file_size_limit()?);
        let [to, from] = [Arc::new(Arena::new(size)?), Arc::new(Arena::new(size)?)];
        Ok(SharedMemory { to, from, slots: Mutex::new(Slots::new(size)), given_back: AtomicBool::new(false) })
    }

    /// The arena towards Python, and the one from Python.
    pub(super) fn arenas(&self) -> [&Arena; 2] {
        [&self.to, &self.from]
    }

    /// Bytes of the slots towards Python that are in use.
    pub(super) fn bytes(&self) -> u64 {
        self.slots().bytes()
    }

    /// Whether there may be memory in no slot, for [`SharedMemory::sweep`].
    pub(super) fn has_slack(&self) -> bool {
        self.slots().has_slack()
    }

    /// Copies the large parts of a frame into slots, as far as there is room. Returns the bytes of these slots.
    pub(super) async fn place<B: AsRef<[u8]> + Send>(&self, frame: &mut Frame<B>) -> usize {
        let mut placed = 0;
        let parts: Vec<_> = frame.parts_for_slots(WORTH).collect();
        for part in parts {
            let Some((lead, length)) = frame.part(part).map(|bytes| (lead_in_slot(part, bytes), bytes.len()))
            else {
                continue;
            };
            let slot = self.slots().reserve(lead, length);
            if let Some(slot) = slot {
                self.allocate_large(Arena::large_part(&slot.fresh)).await;
                if self.copy(frame, part, slot.offset).await {
                    frame.replace_by_slot(part, slot.offset);
                    placed += slot.length as usize;
                } else {
                    // There is no memory, so the part stays in the frame. Python does not know of the slot.
                    let _ = self.slots().free(slot.offset);
                }
            }
        }
        if self.is_given_back() {
            // The last pieces may have taken memory again.
            self.give_all_back();
        }
        placed
    }

    /// Allocates large pages, which takes too long for a task.
    async fn allocate_large(&self, range: Range<u64>) {
        if !range.is_empty() {
            let arena = Arc::clone(&self.to);
            // An error means that the runtime is ending.
            let _ = tokio::task::spawn_blocking(move || arena.allocate_large(&range)).await;
        }
    }

    async fn copy<B: AsRef<[u8]> + Send>(&self, frame: &mut Frame<B>, part: Part, offset: u64) -> bool {
        let mut done = 0;
        loop {
            let rest = frame.part(part).and_then(|bytes| bytes.get(done..)).unwrap_or_default();
            let piece = rest.get(..PIECE).unwrap_or(rest);
            if piece.is_empty() {
                return true;
            }
            if self.to.write(piece, offset + done as u64).is_err() || self.is_given_back() {
                return false;
            }
            done += piece.len();
            tokio::task::yield_now().await;
        }
    }

    /// Gives memory that is in no slot back to the system. Only the writer task may call this, because it reserves the slots:
    /// a slot that is reserved during the sweep could lose its content.
    pub(super) async fn sweep(&self) {
        let slack = self.slots().take_slack();
        for range in slack {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + SWEEP);
                self.to.give_back(start..end);
                start = end;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives all memory back to the system once the tree is gone, even if some process still has a descriptor.
    pub(super) fn give_all_back(&self) {
        self.given_back.store(true, Ordering::SeqCst);
        for arena in self.arenas() {
            arena.give_back(0..arena.size());
        }
    }

    fn is_given_back(&self) -> bool {
        self.given_back.load(Ordering::SeqCst)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics while holding the lock.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: AsRef<[u8]> + Send + 'static, S: Sink> Worker<B, S> {
    /// Handles Python's reports about slots. An error says how a report broke the protocol.
    pub(super) fn slot_reports(&self, body: &[u8]) -> Result<(), String> {
        let (Some(shared), Some(reports)) = (&self.shared, read_slot_reports(body)) else {
            return Err(format!("reports about slots that cannot be read, {} bytes", body.len()));
        };
        let mut read = 0;
        for report in reports {
            let unread = match report {
                SlotReport::Taken(offset) => shared.slots().taken(offset),
                SlotReport::Free(offset) => shared.slots().free(offset),
            };
            read += unread.map_err(|error| error.to_string())? as usize;
        }
        let awaited = self.outbox().mark_read(read);
        if awaited {
            self.sink.writable();
        }
        if shared.has_slack() {
            // The writer task sweeps it after a while.
            self.queued.notify_one();
        }
        Ok(())
    }

    /// The arena for bodies from Python; `None` unless Python has reported in `READY` that it shares memory.
    pub(super) fn inbound(&self) -> Option<Inbound> {
        let shared = self.shared.as_ref().filter(|_| self.outbox().shares())?;
        Some(Inbound::new(Arc::clone(&shared.from)))
    }

    /// Gives a slot from Python back, once the VM has copied its body.
    pub(super) fn give_back_slot(&self, offset: u64) {
        self.submit(Frame::new(Header::new(Kind::Drop, 0), &drop_record(offset)));
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::pickle::{BinaryAs, Pickle};
    use crate::shared_memory::tests::pages;

    #[test]
    fn what_is_copied_while_all_memory_is_given_back_takes_none() {
        let shared = SharedMemory::new(1 << 30).unwrap();
        let mut pickle = Pickle::<Vec<u8>>::new();
        pickle.buffer(vec![7; 16 * PIECE], BinaryAs::Memoryview);
        let mut frame = pickle.into_frame(Header::new(Kind::Eval, 1));
        let ending = async {
            while pages(&shared.to) == 0 {
                tokio::task::yield_now().await;
            }
            shared.give_all_back();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (placed, ()) = runtime.block_on(async { tokio::join!(shared.place(&mut frame), ending) });
        assert_eq!((placed, pages(&shared.to)), (0, 0));
        assert!(frame.part(Part::Buffer(0)).is_some());
    }
}
