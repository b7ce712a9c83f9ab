//! The table of pending requests: processes that wait for an answer from Python, or for room in the queue towards it.
//!
//! Ownership: the table owns an entry until one of three events removes it: the answer arrives, the waiter gives up or
//! dies, or the interpreter ends. Only the thread that removes an entry may send the waiter its last message, and it
//! does so while it holds the table's lock. So a waiter that gives up and finds no entry knows that the message is already in
//! its mailbox, and can remove it there.
//!
//! Entries are indexed by number and by process, so the death of one process costs the same however many others wait.
//!
//! Notifying every waiter can take long. [`Pending::notify_room`] and [`Pending::fail_all`] therefore release the lock after
//! every few waiters, and a thread that is blocked on the lock, possibly a scheduler, gets it next.
//!
//! The table numbers requests consecutively, so it can tell a late answer from an answer to a request that was never made.

use crate::sync::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::PoisonError;
use thiserror::Error;

/// This bit marks the number of an entry that waits for room, so these numbers sort behind all requests. Python never sees
/// them and cannot answer them.
const ROOM: u64 = 1 << 62;

/// How many waiters are notified before the lock is released. Each takes about a microsecond.
const BATCH: usize = 64;

/// How many recent answers are remembered, to tell a second answer from a late one.
const REMEMBERED: usize = 1024;

/// An answer that Python should not have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnexpectedAnswer {
    /// No request had this number.
    #[error("an answer to request {0}, which was never made")]
    Unknown(u64),
    /// The request has been answered before.
    #[error("a second answer to request {0}")]
    Duplicate(u64),
}

/// Why an entry is not added to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<D> {
    /// The interpreter is down; `D` says how it ended.
    Down(D),
    /// The table has reached this limit.
    TooMany(usize),
}

/// Someone who waits for an answer or for room, on behalf of a process.
pub trait Waiter {
    /// Identifies a process.
    type Process: Ord + Copy;

    /// The process that waits.
    fn process(&self) -> Self::Process;
}

/// The table of one interpreter. `D` says how the interpreter went down.
pub struct Pending<W: Waiter, D> {
    state: Mutex<State<W, D>>,
    /// Makes the lock on `state` fair. A thread holds this one while it waits for `state`, so a thread that has released
    /// `state` and wants it again has to queue here first.
    turn: Mutex<()>,
}

struct State<W: Waiter, D> {
    /// Everyone who waits, for an answer or for room. A tree, because a hash table would rehash now and then, on a scheduler.
    entries: BTreeMap<u64, Entry<W>>,
    /// The numbers of the same entries, by process.
    by_process: BTreeSet<(W::Process, u64)>,
    /// The number of the latest request.
    requests: u64,
    /// The number of the latest wait for room, without [`ROOM`].
    rooms: u64,
    /// The latest requests that were answered: request `n` is stored at index `n % REMEMBERED`.
    answered: Box<[u64]>,
    /// Set by the first [`Pending::fail_all`]. No entry is added afterwards.
    down: Option<D>,
}

struct Entry<W> {
    waiter: W,
    /// Its frame is being submitted. Python must not see the cancellation before the frame.
    submitting: bool,
    /// The process died while the frame was being submitted.
    abandoned: bool,
}

impl<W: Waiter, D> State<W, D> {
    fn check(&self, limit: usize) -> Result<(), Refused<D>>
    where
        D: Clone,
    {
        match &self.down {
            Some(down) => Err(Refused::Down(down.clone())),
            None if self.entries.len() >= limit => Err(Refused::TooMany(limit)),
            None => Ok(()),
        }
    }

    /// Fails unless a request had this number.
    fn check_known(&self, id: u64) -> Result<(), UnexpectedAnswer> {
        if id == 0 || id > self.requests { Err(UnexpectedAnswer::Unknown(id)) } else { Ok(()) }
    }

    fn insert(&mut self, id: u64, waiter: W, submitting: bool) {
        self.by_process.insert((waiter.process(), id));
        self.entries.insert(id, Entry { waiter, submitting, abandoned: false });
    }

    fn remove(&mut self, id: u64) -> Option<W> {
        let entry = self.entries.remove(&id)?;
        self.by_process.remove(&(entry.waiter.process(), id));
        Some(entry.waiter)
    }
}

impl<W: Waiter, D: Clone> Default for Pending<W, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<W: Waiter, D: Clone> Pending<W, D> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            entries: BTreeMap::new(),
            by_process: BTreeSet::new(),
            requests: 0,
            rooms: 0,
            answered: vec![0; REMEMBERED].into_boxed_slice(),
            down: None,
        };
        Pending { state: Mutex::new(state), turn: Mutex::new(()) }
    }

    /// Adds a request and returns its number. The caller submits the frame next, and then calls [`Pending::submitted`].
    ///
    /// # Errors
    /// [`Refused`] if the interpreter is down, or if the table has `limit` entries.
    pub fn begin(&self, waiter: W, limit: usize) -> Result<u64, Refused<D>> {
        let mut state = self.state();
        state.check(limit)?;
        state.requests += 1;
        let id = state.requests;
        state.insert(id, waiter, true);
        Ok(id)
    }

    /// Notes that the frame of a request has been submitted. Returns whether the request has to be cancelled, because its
    /// process died in the meantime.
    pub fn submitted(&self, id: u64) -> bool {
        let mut state = self.state();
        match state.entries.get_mut(&id) {
            Some(entry) if entry.abandoned => state.remove(id).is_some(),
            Some(entry) => {
                entry.submitting = false;
                false
            }
            None => false,
        }
    }

    /// Adds a waiter for room, and returns its number.
    ///
    /// # Errors
    /// As [`Pending::begin`].
    pub fn wait_for_room(&self, waiter: W, limit: usize) -> Result<u64, Refused<D>> {
        let mut state = self.state();
        state.check(limit)?;
        state.rooms += 1;
        let id = state.rooms | ROOM;
        state.insert(id, waiter, false);
        Ok(id)
    }

    /// Removes an entry whose waiter gives up. Returns whether it was still in the table.
    pub fn forget(&self, id: u64) -> bool {
        self.state().remove(id).is_some()
    }

    /// Removes a request that is answered, and passes its waiter to `notify`. Does nothing if the waiter has given up.
    ///
    /// # Errors
    /// [`UnexpectedAnswer`]: Python has broken the protocol.
    pub fn answer(&self, id: u64, notify: impl FnOnce(W)) -> Result<(), UnexpectedAnswer> {
        let mut state = self.state();
        state.check_known(id)?;
        let place = (id % REMEMBERED as u64) as usize;
        if let Some(waiter) = state.remove(id) {
            if let Some(slot) = state.answered.get_mut(place) {
                *slot = id;
            }
            notify(waiter);
        } else if state.answered.get(place) == Some(&id) {
            return Err(UnexpectedAnswer::Duplicate(id));
        }
        Ok(())
    }

    /// Passes the waiter of a request to `notify`, for a part of its answer. The request stays in the table. Does nothing if
    /// the waiter has given up.
    ///
    /// # Errors
    /// [`UnexpectedAnswer::Unknown`]: Python has broken the protocol.
    pub fn answer_part(&self, id: u64, notify: impl FnOnce(&mut W)) -> Result<(), UnexpectedAnswer> {
        let mut state = self.state();
        state.check_known(id)?;
        if let Some(entry) = state.entries.get_mut(&id) {
            notify(&mut entry.waiter);
        }
        Ok(())
    }

    /// As [`Pending::answer`], for the end of an answer in parts, which may overtake some of them. So the request stays in the
    /// table until its waiter has every part and calls [`Pending::forget`].
    ///
    /// # Errors
    /// As [`Pending::answer`].
    pub fn answer_early(&self, id: u64, notify: impl FnOnce(&mut W)) -> Result<(), UnexpectedAnswer> {
        let mut state = self.state();
        state.check_known(id)?;
        let state = &mut *state;
        let slot = state.answered.get_mut((id % REMEMBERED as u64) as usize);
        if slot.as_deref() == Some(&id) {
            return Err(UnexpectedAnswer::Duplicate(id));
        }
        if let Some(entry) = state.entries.get_mut(&id) {
            if let Some(slot) = slot {
                *slot = id;
            }
            notify(&mut entry.waiter);
        }
        Ok(())
    }

    /// Removes everyone who waits for room, and passes each to `notify`.
    pub fn notify_room(&self, notify: impl Fn(W)) {
        // Waiters that are added after this line have to wait for the next call, so that this one ends.
        let latest = self.state().rooms | ROOM;
        while self.notify_batch(ROOM..=latest, &notify) {}
    }

    /// Removes up to [`BATCH`] of the entries with these numbers, and passes their waiters to `notify`. Returns whether there
    /// may be more.
    fn notify_batch(&self, ids: RangeInclusive<u64>, notify: impl Fn(W)) -> bool {
        let mut state = self.state();
        for _ in 0..BATCH {
            let first = state.entries.range(ids.clone()).next().map(|(id, _)| *id);
            let Some(waiter) = first.and_then(|id| state.remove(id)) else { return false };
            notify(waiter);
        }
        true
    }

    /// Calls `use_waiter` with the waiter of a request, while the table is locked. Returns `None` if nobody waits.
    pub fn with<R>(&self, id: u64, use_waiter: impl FnOnce(&mut W) -> R) -> Option<R> {
        self.state().entries.get_mut(&id).map(|entry| use_waiter(&mut entry.waiter))
    }

    /// Removes the entries of a process that has died, and returns the requests that have to be cancelled now. A request whose
    /// frame is still being submitted stays until [`Pending::submitted`].
    pub fn abandon(&self, process: W::Process) -> Vec<u64> {
        let mut state = self.state();
        let ids: Vec<u64> =
            state.by_process.range((process, 0)..=(process, u64::MAX)).map(|(_, id)| *id).collect();
        let mut to_cancel = Vec::new();
        for id in ids {
            match state.entries.get_mut(&id) {
                Some(entry) if entry.submitting => entry.abandoned = true,
                _ => {
                    state.remove(id);
                    if id & ROOM == 0 {
                        to_cancel.push(id);
                    }
                }
            }
        }
        to_cancel
    }

    /// Removes every entry, and passes each waiter to `notify` with how the interpreter went down. If this is called more than
    /// once, the first `down` counts.
    pub fn fail_all(&self, down: D, notify: impl Fn(W, &D)) {
        // From here on, nothing is added.
        let down = self.state().down.get_or_insert(down).clone();
        while self.notify_batch(0..=u64::MAX, |waiter| notify(waiter, &down)) {}
    }

    /// The number of entries: requests, and waiters for room.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of requests made so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    fn state(&self) -> MutexGuard<'_, State<W, D>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A panic between two statements leaves a consistent table, so a poisoned lock can be used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
