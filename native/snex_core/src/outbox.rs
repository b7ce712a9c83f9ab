//! Frames on their way to Python: written at once while the pipe takes them, queued behind a high-water mark otherwise.
//!
//! Whoever submits a frame writes it itself if nothing is queued, so a small request costs one system call and no
//! hand-over. What the pipe does not take is queued, and the worker's writer task, the only one that waits for the pipe,
//! writes it later. While the queue is above the high-water mark, requests wait before their frames are even made
//! ([`Outbox::wait_if_full`]) until the queue is below the low-water mark. Who they are is known to the table of requests
//! ([`crate::pending`]) alone; the outbox only knows whether there may be any.
//!
//! A frame with a buffer that is worth a slot of shared memory waits, and all that follow it, until the writer task has copied the
//! buffer there: on a scheduler such copies have no place. What lies in a slot and has not been taken by Python counts as queued.
//!
//! Ownership: the outbox and the writer task share the write end of the pipe. [`Outbox::close`] drops the outbox's share
//! and what is queued; the writer task drops its own when it finds the outbox closed, and Python reads end of file.

use crate::frame::{Frame, Segment};
use crate::shared_memory::WORTH;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most bytes that one system call is asked to take, so that none holds a scheduler for long.
const MAX_WRITE: usize = 256 * 1024;

/// The most pieces that one system call is asked to take.
const MAX_SLICES: usize = 16;

/// A piece of this size takes its time to be freed.
const LARGE: usize = 64 * 1024;

/// What became of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The pipe took it whole.
    Written,
    /// Some of it waits: the writer task has to be woken.
    Queued,
    /// The pipe is closed: Python is gone or going.
    Closed,
}

/// The queue of one pipe towards Python, and those who wait for room in it.
#[derive(Debug)]
pub struct Outbox<B> {
    pipe: Option<Arc<OwnedFd>>,
    queue: VecDeque<Segment<B>>,
    /// Bytes of the queue's first segment that are written already.
    written: usize,
    /// Bytes in the queue that are not written.
    queued: usize,
    /// Whether large buffers go to shared memory.
    shares: bool,
    /// Frames behind the queue: the first one has buffers to be copied to shared memory.
    unplaced: VecDeque<Frame<B>>,
    /// Bytes in them, and in the one that is being placed.
    unplaced_bytes: usize,
    /// Whether the writer task has one of them, whose place is behind the queue.
    placing: bool,
    /// Bytes in shared memory that Python has not taken.
    unread: usize,
    low: usize,
    high: usize,
    /// Whether anybody may wait for room.
    awaited: bool,
    /// Large pieces that are of no use any more.
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

    /// Whether a frame should wait rather than be made. If so, [`Outbox::flush`] or the end says when to try again.
    pub fn wait_if_full(&mut self) -> bool {
        let full = self.is_full();
        self.awaited |= full;
        full
    }

    /// Whether what waits is above the high-water mark.
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

    /// Bytes that Python has not taken, as far as they are not in the pipe.
    pub fn waiting(&self) -> usize {
        self.queued + self.unplaced_bytes + self.unread
    }

    /// From now on, large buffers go to shared memory.
    pub fn share(&mut self) {
        self.shares = true;
    }

    /// Whether they do.
    pub fn shares(&self) -> bool {
        self.shares
    }

    /// Takes a frame: never blocks, and takes it also when full.
    pub fn submit(&mut self, frame: Frame<B>) -> Submitted {
        if self.pipe.is_none() {
            return Submitted::Closed;
        }
        if self.placing || !self.unplaced.is_empty() || (self.shares && frame.has_buffer_for_slot(WORTH)) {
            self.unplaced_bytes += frame.len();
            self.unplaced.push_back(frame);
            return Submitted::Queued;
        }
        let idle = self.queue.is_empty();
        self.enqueue(frame);
        if idle && self.write().is_err() {
            // Broken: the reader and the warden are about to tell why. Nothing can be written any more.
            self.forget();
            return Submitted::Closed;
        }
        if self.queue.is_empty() { Submitted::Written } else { Submitted::Queued }
    }

    /// The next frame whose buffers may go to shared memory, once all before it are written. To be handed to [`Outbox::placed`].
    pub fn next_unplaced(&mut self) -> Option<Frame<B>> {
        let frame = if self.queue.is_empty() { self.unplaced.pop_front() } else { None };
        self.placing = frame.is_some();
        frame
    }

    /// The frame that was taken last, of `length` bytes then, is ready to be written. So many bytes of it are in slots.
    pub fn placed(&mut self, frame: Frame<B>, length: usize, in_slots: usize) {
        self.placing = false;
        if self.pipe.is_none() {
            self.spent.extend(frame.segments);
            return;
        }
        self.unplaced_bytes -= length;
        self.unread += in_slots;
        self.enqueue(frame);
        while self.unplaced.front().is_some_and(|frame| !frame.has_buffer_for_slot(WORTH)) {
            let Some(frame) = self.unplaced.pop_front() else { return };
            self.unplaced_bytes -= frame.len();
            self.enqueue(frame);
        }
    }

    /// Python has taken so many bytes out of shared memory. Whether those who wait for room should try again.
    pub fn read(&mut self, bytes: usize) -> bool {
        self.unread = self.unread.saturating_sub(bytes);
        self.has_room()
    }

    /// Writes what the pipe takes now. Whether those who wait for room should try again.
    ///
    /// # Errors
    /// Those of the pipe; it is not usable any more.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.write()?;
        Ok(self.has_room())
    }

    /// Closes the pipe and forgets the queue. Whether there may be callers that wait for room: they should try again, and
    /// will find it closed.
    pub fn close(&mut self) -> bool {
        self.forget();
        std::mem::take(&mut self.awaited)
    }

    /// Large pieces that are written, or never will be: to be dropped after the lock that the outbox is in is released, for
    /// others wait for that on schedulers.
    #[must_use]
    pub fn spent(&mut self) -> VecDeque<Segment<B>> {
        std::mem::take(&mut self.spent)
    }

    /// Whether those who wait should try again; they are forgotten then.
    fn has_room(&mut self) -> bool {
        self.waiting() <= self.low && std::mem::take(&mut self.awaited)
    }

    fn enqueue(&mut self, frame: Frame<B>) {
        self.queued += frame.len();
        self.queue.extend(frame.segments);
    }

    fn forget(&mut self) {
        self.pipe = None;
        self.spent.append(&mut self.queue);
        self.spent.extend(self.unplaced.drain(..).flat_map(|frame| frame.segments));
        self.queued = 0;
        self.unplaced_bytes = 0;
        self.unread = 0;
    }

    /// One system call's worth of the queue.
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

/// Writes the start of `queue`, from byte `skip` of its first segment on. Returns how much the pipe took, also 0.
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
