//! Requests that wait: for an answer from Python, or for room in the queue towards it.
//!
//! Ownership: an entry belongs to the table from the moment its request waits until one of three takes it out: the answer, the
//! caller that gives up or dies, or the end of the interpreter. Only the one that takes it out may send to the caller, and it
//! does so while the table is locked: a caller that gives up and finds its entry gone knows that its message is in its mailbox
//! already, and can remove it.
//!
//! The table finds entries by the number of their request, and by the process that waits, so that the death of one caller costs
//! the same however many others wait.
//!
//! What all callers are told takes long if there are many. So the lock is released after every few of them, and the thread that
//! waits for it, which may be a scheduler's, gets it next.
//!
//! Numbers of requests are handed out here, one after the other, so an answer to a number that was not handed out yet is told
//! from an answer that comes late.

use crate::sync::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::PoisonError;
use thiserror::Error;

/// Set in the numbers of those that wait for room: they come after all requests. Python never sees them, and cannot answer
/// them.
const ROOM: u64 = 1 << 62;

/// How many callers are told before the lock is released. Each takes about a microsecond.
const AT_ONCE: usize = 64;

/// How many answers are remembered, to tell one that comes twice from one that comes late.
const REMEMBERED: usize = 1024;

/// An answer that nobody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unasked {
    /// No request had this number.
    #[error("an answer to request {0}, which never was")]
    NeverWas(u64),
    /// There was an answer to it before.
    #[error("a second answer to request {0}")]
    Twice(u64),
}

/// Why a request is not added to the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<D> {
    /// The interpreter went down, like this.
    Down(D),
    /// So many are in the table already, and there may not be more.
    TooMany(usize),
}

/// Somebody who waits.
pub trait Caller {
    /// What tells the processes that wait apart.
    type Process: Ord + Copy;

    /// The process that waits.
    fn process(&self) -> Self::Process;
}

/// The table of one interpreter. `C` is a caller, `D` is how the interpreter went down.
pub struct Pending<C: Caller, D> {
    state: Mutex<State<C, D>>,
    /// Held by the one thread that waits for `state` next. One that has released `state`, and wants it again, comes after it.
    turn: Mutex<()>,
}

struct State<C: Caller, D> {
    /// Those that wait, for an answer or for room. A tree grows by a little each time; a hash table would copy itself now and
    /// then, on a scheduler.
    entries: BTreeMap<u64, Entry<C>>,
    /// The same by the process that waits.
    by_process: BTreeSet<(C::Process, u64)>,
    /// The number of the latest request.
    requests: u64,
    /// The number of the latest that waited for room, without [`ROOM`].
    rooms: u64,
    /// Requests that were answered: number `n` stands at `n % REMEMBERED`.
    answered: Box<[u64]>,
    /// Set once nothing will be answered any more.
    down: Option<D>,
}

struct Entry<C> {
    caller: C,
    /// Its frame is on the way, and may not be cancelled before it is there.
    submitting: bool,
    /// The caller has died in the meantime.
    abandoned: bool,
}

impl<C: Caller, D> State<C, D> {
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

    /// An error for a number that no request has had.
    fn asked(&self, id: u64) -> Result<(), Unasked> {
        if id == 0 || id > self.requests { Err(Unasked::NeverWas(id)) } else { Ok(()) }
    }

    fn insert(&mut self, id: u64, caller: C, submitting: bool) {
        self.by_process.insert((caller.process(), id));
        self.entries.insert(id, Entry { caller, submitting, abandoned: false });
    }

    fn remove(&mut self, id: u64) -> Option<C> {
        let entry = self.entries.remove(&id)?;
        self.by_process.remove(&(entry.caller.process(), id));
        Some(entry.caller)
    }
}

impl<C: Caller, D: Clone> Default for Pending<C, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Caller, D: Clone> Pending<C, D> {
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

    /// Adds a request whose frame is about to be submitted, and returns its number. [`Pending::submitted`] has to follow.
    ///
    /// # Errors
    /// [`Refused`]: the interpreter is down, or there are `limit` in the table.
    pub fn begin(&self, caller: C, limit: usize) -> Result<u64, Refused<D>> {
        let mut state = self.state();
        state.check(limit)?;
        state.requests += 1;
        let id = state.requests;
        state.insert(id, caller, true);
        Ok(id)
    }

    /// The frame of a request is submitted. Whether the request is to be cancelled, because its caller has died meanwhile.
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

    /// Adds a caller that waits for room, and returns its number.
    ///
    /// # Errors
    /// As [`Pending::begin`].
    pub fn wait_for_room(&self, caller: C, limit: usize) -> Result<u64, Refused<D>> {
        let mut state = self.state();
        state.check(limit)?;
        state.rooms += 1;
        let id = state.rooms | ROOM;
        state.insert(id, caller, false);
        Ok(id)
    }

    /// Takes a request out. Whether it was still there.
    pub fn forget(&self, id: u64) -> bool {
        self.state().remove(id).is_some()
    }

    /// Hands the caller of a request that is answered to `notify`, if it still waits.
    ///
    /// # Errors
    /// [`Unasked`]. Python can only have made it up.
    pub fn answer(&self, id: u64, notify: impl FnOnce(C)) -> Result<(), Unasked> {
        let mut state = self.state();
        state.asked(id)?;
        let place = (id % REMEMBERED as u64) as usize;
        if let Some(caller) = state.remove(id) {
            if let Some(slot) = state.answered.get_mut(place) {
                *slot = id;
            }
            notify(caller);
        } else if state.answered.get(place) == Some(&id) {
            return Err(Unasked::Twice(id));
        }
        Ok(())
    }

    /// Hands the caller of a request to `notify`, if it still waits. It waits on: more will come.
    ///
    /// # Errors
    /// [`Unasked::NeverWas`]. Python can only have made it up.
    pub fn more(&self, id: u64, notify: impl FnOnce(&mut C)) -> Result<(), Unasked> {
        let mut state = self.state();
        state.asked(id)?;
        if let Some(entry) = state.entries.get_mut(&id) {
            notify(&mut entry.caller);
        }
        Ok(())
    }

    /// As [`Pending::answer`], for a caller that waits on until it has itself taken out: what came before the answer may arrive after it.
    ///
    /// # Errors
    /// As [`Pending::answer`].
    pub fn answer_early(&self, id: u64, notify: impl FnOnce(&mut C)) -> Result<(), Unasked> {
        let mut state = self.state();
        state.asked(id)?;
        let state = &mut *state;
        let slot = state.answered.get_mut((id % REMEMBERED as u64) as usize);
        if slot.as_deref() == Some(&id) {
            return Err(Unasked::Twice(id));
        }
        if let Some(entry) = state.entries.get_mut(&id) {
            if let Some(slot) = slot {
                *slot = id;
            }
            notify(&mut entry.caller);
        }
        Ok(())
    }

    /// Hands every caller that waits for room to `notify`.
    pub fn room(&self, notify: impl Fn(C)) {
        // Those who begin to wait after this are told the next time.
        let latest = self.state().rooms | ROOM;
        while self.notify_some(ROOM..=latest, &notify) {}
    }

    /// Hands some of those with these numbers to `notify`. Whether there may be more.
    fn notify_some(&self, ids: RangeInclusive<u64>, notify: impl Fn(C)) -> bool {
        let mut state = self.state();
        for _ in 0..AT_ONCE {
            let first = state.entries.range(ids.clone()).next().map(|(id, _)| *id);
            let Some(caller) = first.and_then(|id| state.remove(id)) else { return false };
            notify(caller);
        }
        true
    }

    /// Looks at the caller of a request; `None` when nobody waits for it.
    pub fn with<R>(&self, id: u64, look: impl FnOnce(&mut C) -> R) -> Option<R> {
        self.state().entries.get_mut(&id).map(|entry| look(&mut entry.caller))
    }

    /// Takes out what has been asked by a process that is gone, and returns the requests that are to be cancelled now.
    pub fn abandon(&self, process: C::Process) -> Vec<u64> {
        let mut state = self.state();
        let asked: Vec<u64> =
            state.by_process.range((process, 0)..=(process, u64::MAX)).map(|(_, id)| *id).collect();
        let mut to_cancel = Vec::new();
        for id in asked {
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

    /// Tells every caller that the interpreter is down. The first reason stays.
    pub fn fail_all(&self, down: D, notify: impl Fn(C, &D)) {
        // From here on, nobody is added.
        let down = self.state().down.get_or_insert(down).clone();
        while self.notify_some(0..=u64::MAX, |caller| notify(caller, &down)) {}
    }

    /// Requests and waiting callers in the table.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests that there have been.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    fn state(&self) -> MutexGuard<'_, State<C, D>> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // The table is consistent between any two statements that hold it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
