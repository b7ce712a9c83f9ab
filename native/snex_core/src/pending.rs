//! Requests that wait: for an answer from Python, or for room in the queue towards it.
//!
//! Ownership: an entry belongs to the table from the moment its request waits until one of three takes it out: the answer, the
//! caller that gives up or dies, or the end of the interpreter. Whoever takes it out is the only one that deals with the caller.
//! Callers are dealt with while the table is locked: one that gives up and finds its entry gone knows that its message is
//! in its mailbox already, and can remove it.
//!
//! Numbers of requests are handed out here, one after the other, so an answer to one that never was is told from one
//! that comes late.

use crate::sync::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use std::sync::PoisonError;
use thiserror::Error;

/// Set in the numbers of those that wait for room. Python never sees them, and cannot answer them.
const ROOM: u64 = 1 << 62;

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

/// The table of one interpreter. `C` is a caller, `D` is how the interpreter went down.
pub struct Pending<C, D> {
    state: Mutex<State<C, D>>,
}

struct State<C, D> {
    entries: FxHashMap<u64, Entry<C>>,
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

impl<C, D: Clone> Default for Pending<C, D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C, D: Clone> Pending<C, D> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            entries: FxHashMap::default(),
            requests: 0,
            rooms: 0,
            answered: vec![0; REMEMBERED].into_boxed_slice(),
            down: None,
        };
        Pending { state: Mutex::new(state) }
    }

    /// Adds a request whose frame is about to be submitted, and returns its number. [`Pending::submitted`] has to follow.
    ///
    /// # Errors
    /// How the interpreter went down, when it did.
    pub fn begin(&self, caller: C) -> Result<u64, D> {
        let mut state = self.state();
        if let Some(down) = &state.down {
            return Err(down.clone());
        }
        state.requests += 1;
        let id = state.requests;
        state.entries.insert(id, Entry { caller, submitting: true, abandoned: false });
        Ok(id)
    }

    /// The frame of a request is submitted. Whether the request is to be cancelled, because its caller has died meanwhile.
    pub fn submitted(&self, id: u64) -> bool {
        let mut state = self.state();
        match state.entries.get_mut(&id) {
            Some(entry) if entry.abandoned => state.entries.remove(&id).is_some(),
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
    /// How the interpreter went down, when it did.
    pub fn wait_for_room(&self, caller: C) -> Result<u64, D> {
        let mut state = self.state();
        if let Some(down) = &state.down {
            return Err(down.clone());
        }
        state.rooms += 1;
        let id = state.rooms | ROOM;
        state.entries.insert(id, Entry { caller, submitting: false, abandoned: false });
        Ok(id)
    }

    /// Takes a request out. Whether it was still there.
    pub fn forget(&self, id: u64) -> bool {
        self.state().entries.remove(&id).is_some()
    }

    /// Deals with the caller of a request that is answered, if it still waits.
    ///
    /// # Errors
    /// [`Unasked`]. Python can only have made it up.
    pub fn answer(&self, id: u64, tell: impl FnOnce(C)) -> Result<(), Unasked> {
        let mut state = self.state();
        if id == 0 || id > state.requests {
            return Err(Unasked::NeverWas(id));
        }
        let place = (id % REMEMBERED as u64) as usize;
        if let Some(entry) = state.entries.remove(&id) {
            if let Some(slot) = state.answered.get_mut(place) {
                *slot = id;
            }
            tell(entry.caller);
        } else if state.answered.get(place) == Some(&id) {
            return Err(Unasked::Twice(id));
        }
        Ok(())
    }

    /// Deals with a caller that waits for room, if it still does.
    pub fn room(&self, id: u64, tell: impl FnOnce(C)) {
        let mut state = self.state();
        if let Some(entry) = state.entries.remove(&id) {
            tell(entry.caller);
        }
    }

    /// Looks at the caller of a request; `None` when nobody waits for it.
    pub fn with<R>(&self, id: u64, look: impl FnOnce(&mut C) -> R) -> Option<R> {
        self.state().entries.get_mut(&id).map(|entry| look(&mut entry.caller))
    }

    /// Takes out what has been asked by a process that is gone, and returns the requests that are to be cancelled now.
    pub fn abandon(&self, is_gone: impl Fn(&C) -> bool) -> Vec<u64> {
        let mut to_cancel = Vec::new();
        self.state().entries.retain(|id, entry| {
            let stays = !is_gone(&entry.caller) || entry.submitting;
            if !stays && id & ROOM == 0 {
                to_cancel.push(*id);
            }
            entry.abandoned |= entry.submitting && is_gone(&entry.caller);
            stays
        });
        to_cancel
    }

    /// Tells every caller that the interpreter is down. The first reason stays.
    pub fn fail_all(&self, down: D, tell: impl Fn(C, &D)) {
        let mut state = self.state();
        let down = state.down.get_or_insert(down).clone();
        for (_, entry) in state.entries.drain() {
            tell(entry.caller, &down);
        }
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
        // The table is consistent between any two statements that hold it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    type Table = Pending<&'static str, &'static str>;

    fn told(table: &Table, id: u64) -> (Option<&'static str>, Result<(), Unasked>) {
        let mut told = None;
        let result = table.answer(id, |caller| told = Some(caller));
        (told, result)
    }

    fn sent(table: &Table, caller: &'static str) -> u64 {
        let id = table.begin(caller).unwrap();
        assert!(!table.submitted(id));
        id
    }

    #[test]
    fn an_answer_reaches_its_caller_once() {
        let table = Table::new();
        let (first, second) = (sent(&table, "first"), sent(&table, "second"));
        assert_eq!(told(&table, second), (Some("second"), Ok(())));
        assert_eq!(told(&table, second), (None, Err(Unasked::Twice(second))));
        assert_eq!(told(&table, first), (Some("first"), Ok(())));
        assert_eq!(told(&table, first), (None, Err(Unasked::Twice(first))));
    }

    #[test]
    fn an_answer_to_what_was_forgotten_is_late_however_often_it_comes() {
        let table = Table::new();
        let id = sent(&table, "caller");
        assert!(table.forget(id));
        assert!(!table.forget(id));
        assert_eq!(told(&table, id), (None, Ok(())));
        assert_eq!(told(&table, id), (None, Ok(())));
    }

    #[test]
    fn an_answer_to_what_never_was_is_told_from_a_late_one() {
        let table = Table::new();
        sent(&table, "caller");
        let room = table.wait_for_room("waits").unwrap();
        for id in [0, 2, 1 << 40, u64::MAX, room] {
            assert_eq!(told(&table, id), (None, Err(Unasked::NeverWas(id))));
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_request_whose_caller_dies_is_cancelled_once_and_never_before_it_is_submitted() {
        let table = Table::new();
        let sent = sent(&table, "dies");
        let submitting = table.begin("dies").unwrap();
        let other = table.begin("lives").unwrap();
        table.wait_for_room("dies").unwrap();
        assert_eq!(table.abandon(|caller| *caller == "dies"), [sent]);
        assert!(table.submitted(submitting));
        assert!(!table.submitted(submitting));
        assert!(!table.submitted(other));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_end_tells_everybody_and_whoever_comes_later() {
        let table = Table::new();
        sent(&table, "sent");
        table.begin("submitting").unwrap();
        table.wait_for_room("waiting").unwrap();
        let told = RefCell::new(Vec::new());
        table.fail_all("down", |caller, down| told.borrow_mut().push((caller, *down)));
        table.fail_all("again", |caller, down| told.borrow_mut().push((caller, *down)));
        told.borrow_mut().sort_unstable();
        assert_eq!(*told.borrow(), [("sent", "down"), ("submitting", "down"), ("waiting", "down")]);
        assert_eq!(table.begin("late"), Err("down"));
        assert_eq!(table.wait_for_room("late"), Err("down"));
    }

    proptest! {
        /// Whatever answers come, each caller that has not given up gets one, and a request that was given up never
        /// makes an answer look like a second one.
        #[test]
        fn no_late_answer_is_taken_for_a_second_one(
            events in prop::collection::vec((0u8..4, 0u64..4000), 0..6000)
        ) {
            let table = Table::new();
            let mut answered = std::collections::HashMap::new();
            let mut forgotten = std::collections::HashSet::new();
            let mut requests = 0;
            for (event, pick) in events {
                match event {
                    0 | 1 => requests = sent(&table, "caller"),
                    2 if requests > 0 && table.forget(1 + pick % requests) => {
                        forgotten.insert(1 + pick % requests);
                    }
                    3 if requests > 0 => {
                        let id = 1 + pick % requests;
                        match told(&table, id) {
                            (Some(_), Ok(())) => {
                                prop_assert!(!forgotten.contains(&id));
                                prop_assert_eq!(answered.insert(id, ()), None);
                            }
                            (None, Ok(())) => prop_assert!(forgotten.contains(&id) || answered.contains_key(&id)),
                            (None, Err(Unasked::Twice(twice))) => {
                                prop_assert_eq!(twice, id);
                                prop_assert!(answered.contains_key(&id));
                            }
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                    _ => (),
                }
            }
        }
    }
}
