//! Frames on their way to Python: written at once while the pipe has room, otherwise queued, with back-pressure.
//!
//! If nothing is queued, the thread that submits a frame writes it, so a small request costs one system call and no
//! hand-over. The rest of a frame that does not fit into the pipe is queued for the worker's writer task, the only one that
//! waits for the pipe. While the queue is above the high-water mark, requests wait before their frames are built
//! ([`Outbox::wait_if_full`]), until the queue is below the low-water mark. The table of pending requests
//! ([`crate::pending`]) knows who waits; the outbox only knows whether anyone may.
//!
//! A buffer or a pickle that is large enough for a slot of shared memory is copied there by the writer task, because a scheduler must
//! not spend its time on such copies. Its frame, and every frame behind it, waits until then. A slot counts as queued until
//! Python has read the frame that names it.
//!
//! Ownership: the outbox and the writer task share the write end of the pipe. [`Outbox::close`] drops the outbox's share
//! and the queue. The writer task drops its share when it finds the outbox closed; then Python reads end of file.

use crate::frame::{Frame, Segment};
use crate::shared_memory::WORTH;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most bytes passed to one system call, so that none occupies a scheduler for long.
const MAX_WRITE: usize = 256 * 1024;

/// The most segments passed to one system call.
const MAX_SLICES: usize = 16;

/// Freeing a segment from this size on takes so long that it must not happen under the lock.
const LARGE: usize = 64 * 1024;

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// All of it is in the pipe.
    Written,
    /// Some of it is queued: the caller has to wake the writer task.
    Queued,
    /// The pipe is closed: Python has ended, or is about to.
    Closed,
}

/// The queue of one pipe towards Python.
#[derive(Debug)]
pub struct Outbox<B> {
    /// `None` once closed.
    pipe: Option<Arc<OwnedFd>>,
    queue: VecDeque<Segment<B>>,
    /// Bytes of the queue's first segment that have been written.
    written: usize,
    /// Bytes in the queue that have not been written.
    queued: usize,
    /// Whether large buffers go to shared memory.
    shares: bool,
    /// Frames that follow the queue. The first one has buffers that have yet to be copied to shared memory.
    unplaced: VecDeque<Frame<B>>,
    /// Bytes in `unplaced`, and in the frame that the writer task is placing.
    unplaced_bytes: usize,
    /// Whether the writer task holds the first unplaced frame, which will be added to the end of the queue.
    placing: bool,
    /// Bytes of slots whose frames Python has not read.
    unread: usize,
    low: usize,
    high: usize,
    /// Whether anyone may be waiting for room.
    awaited: bool,
    /// Large segments that are no longer needed; see [`Outbox::take_spent`].
    spent: VecDeque<Segment<B>>,
}

impl<B: AsRef<[u8]>> Outbox<B> {
    /// An outbox for a non-blocking `pipe`, with water marks in bytes.
    pub fn new(pipe: Arc<OwnedFd>, low: usize, high: usize) -> Self {
        Outbox {
            pipe: Some(pipe),
            queue: VecDeque::new(),
            written: 0,
            queued: 0,
            shares: false,
            unplaced: VecDeque::new(),
            unplaced_bytes: 0,
            placing: false,
            unread: 0,
            low,
            high,
            awaited: false,
            spent: VecDeque::new(),
        }
    }

    /// Whether nothing can be written any more.
    pub fn is_closed(&self) -> bool {
        self.pipe.is_none()
    }

    /// Whether the outbox is full. If so, [`Outbox::flush`], [`Outbox::mark_read`] or [`Outbox::close`] reports once when the
    /// caller should try again.
    pub fn wait_if_full(&mut self) -> bool {
        let full = self.is_full();
        self.awaited |= full;
        full
    }

    /// Whether [`Outbox::waiting`] is above the high-water mark.
    pub fn is_full(&self) -> bool {
        self.waiting() > self.high
    }

    /// Whether there is nothing left to write.
    pub fn is_empty(&self) -> bool {
        self.queued + self.unplaced_bytes == 0
    }

    /// Bytes that can be written now.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes that Python has not read, without those in the pipe.
    pub fn waiting(&self) -> usize {
        self.queued + self.unplaced_bytes + self.unread
    }

    /// From now on, large buffers go to shared memory.
    pub fn share(&mut self) {
        self.shares = true;
    }

    /// Whether large buffers go to shared memory.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// Accepts a frame, even when full. Never blocks.
    pub fn submit(&mut self, frame: Frame<B>) -> Submitted {
        if self.pipe.is_none() {
            return Submitted::Closed;
        }
        if self.placing
            || !self.unplaced.is_empty()
            || (self.shares && frame.parts_for_slots(WORTH).next().is_some())
        {
            self.unplaced_bytes += frame.len();
            self.unplaced.push_back(frame);
            return Submitted::Queued;
        }
        let idle = self.queue.is_empty();
        self.enqueue(frame);
        if idle && self.write().is_err() {
            // The pipe is broken. The reader and the warden are about to report why.
            self.discard();
            return Submitted::Closed;
        }
        if self.queue.is_empty() { Submitted::Written } else { Submitted::Queued }
    }

    /// Takes the next frame of which parts may go to shared memory; `None` while frames before it are still queued. The writer
    /// task copies the parts, and then returns the frame with [`Outbox::placed`].
    pub fn next_unplaced(&mut self) -> Option<Frame<B>> {
        let frame = if self.queue.is_empty() { self.unplaced.pop_front() } else { None };
        self.placing = frame.is_some();
        frame
    }

    /// Queues the frame that [`Outbox::next_unplaced`] returned. It had `length` bytes then, and its slots have `in_slots` bytes.
    pub fn placed(&mut self, frame: Frame<B>, length: usize, in_slots: usize) {
        self.placing = false;
        if self.pipe.is_none() {
            self.spent.extend(frame.segments);
            return;
        }
        self.unplaced_bytes -= length;
        self.unread += in_slots;
        self.enqueue(frame);
        while self.unplaced.front().is_some_and(|frame| frame.parts_for_slots(WORTH).next().is_none()) {
            let Some(frame) = self.unplaced.pop_front() else { return };
            self.unplaced_bytes -= frame.len();
            self.enqueue(frame);
        }
    }

    /// Notes that Python has read the frames of slots of `bytes` bytes. Returns whether to notify those who wait for room.
    pub fn mark_read(&mut self, bytes: usize) -> bool {
        self.unread = self.unread.saturating_sub(bytes);
        self.should_notify()
    }

    /// Writes as much as the pipe has room for. Returns whether to notify those who wait for room.
    ///
    /// # Errors
    /// Those of the pipe, which cannot be used afterwards.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.write()?;
        Ok(self.should_notify())
    }

    /// Closes the pipe and discards the queue. Returns whether anyone may be waiting for room: notify them too, so that they
    /// try again and find it closed.
    pub fn close(&mut self) -> bool {
        self.discard();
        std::mem::take(&mut self.awaited)
    }

    /// Takes the large segments that have been written, or never will be. Drop them after releasing the lock on the outbox:
    /// freeing them takes long, and schedulers may be blocked on that lock.
    #[must_use]
    pub fn take_spent(&mut self) -> VecDeque<Segment<B>> {
        std::mem::take(&mut self.spent)
    }

    /// Whether the queue is below the low-water mark and someone may be waiting for that. Forgets them: `true` once.
    fn should_notify(&mut self) -> bool {
        self.waiting() <= self.low && std::mem::take(&mut self.awaited)
    }

    fn enqueue(&mut self, frame: Frame<B>) {
        self.queued += frame.len();
        self.queue.extend(frame.segments);
    }

    fn discard(&mut self) {
        self.pipe = None;
        self.spent.append(&mut self.queue);
        self.spent.extend(self.unplaced.drain(..).flat_map(|frame| frame.segments));
        self.queued = 0;
        self.unplaced_bytes = 0;
        self.unread = 0;
    }

    /// Writes the start of the queue with one system call.
    fn write(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let wrote = write_some(pipe.as_fd(), &self.queue, self.written)?;
        self.queued -= wrote;
        self.written += wrote;
        while let Some(first) = self.queue.front() {
            let length = first.as_ref().len();
            if self.written < length {
                break;
            }
            self.written -= length;
            let written = self.queue.pop_front();
            if length >= LARGE {
                self.spent.extend(written);
            }
        }
        Ok(())
    }
}

/// Writes the start of `queue`, from byte `skip` of its first segment on. Returns the number of bytes written: 0 if the pipe
/// is full.
fn write_some<B: AsRef<[u8]>>(
    pipe: BorrowedFd<'_>,
    queue: &VecDeque<Segment<B>>,
    skip: usize,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut count = 0;
    let mut room = MAX_WRITE;
    let mut skip = skip;
    for (slot, segment) in slices.iter_mut().zip(queue) {
        let bytes = segment.as_ref().get(skip..).unwrap_or_default();
        let bytes = bytes.get(..room).unwrap_or(bytes);
        *slot = IoSlice::new(bytes);
        count += 1;
        room -= bytes.len();
        skip = 0;
        if room == 0 {
            break;
        }
    }
    match nix::sys::uio::writev(pipe, &slices[..count]) {
        Ok(wrote) => Ok(wrote),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
