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
//! Numbers of requests are handed out here, one after the other, so an answer to a number that was not handed out yet is told
//! from an answer that comes late.

use crate::sync::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
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
}

struct State<C: Caller, D> {
    /// Those that wait for an answer.
    entries: FxHashMap<u64, Entry<C>>,
    /// Those that wait for room.
    rooms_wanted: FxHashMap<u64, Entry<C>>,
    /// Both, by the process that waits.
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
    fn table(&mut self, id: u64) -> &mut FxHashMap<u64, Entry<C>> {
        if id & ROOM == 0 { &mut self.entries } else { &mut self.rooms_wanted }
    }

    fn check(&self, limit: usize) -> Result<(), Refused<D>>
    where
        D: Clone,
    {
        match &self.down {
            Some(down) => Err(Refused::Down(down.clone())),
            None if self.entries.len() + self.rooms_wanted.len() >= limit => Err(Refused::TooMany(limit)),
            None => Ok(()),
        }
    }

    fn insert(&mut self, id: u64, caller: C, submitting: bool) {
        self.by_process.insert((caller.process(), id));
        self.table(id).insert(id, Entry { caller, submitting, abandoned: false });
    }

    fn remove(&mut self, id: u64) -> Option<C> {
        let entry = self.table(id).remove(&id)?;
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
            entries: FxHashMap::default(),
            rooms_wanted: FxHashMap::default(),
            by_process: BTreeSet::new(),
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

    /// Hands the caller of a request that is answered to `tell`, if it still waits.
    ///
    /// # Errors
    /// [`Unasked`]. Python can only have made it up.
    pub fn answer(&self, id: u64, tell: impl FnOnce(C)) -> Result<(), Unasked> {
        let mut state = self.state();
        if id == 0 || id > state.requests {
            return Err(Unasked::NeverWas(id));
        }
        let place = (id % REMEMBERED as u64) as usize;
        if let Some(caller) = state.remove(id) {
            if let Some(slot) = state.answered.get_mut(place) {
                *slot = id;
            }
            tell(caller);
        } else if state.answered.get(place) == Some(&id) {
            return Err(Unasked::Twice(id));
        }
        Ok(())
    }

    /// Hands every caller that waits for room to `tell`.
    pub fn room(&self, tell: impl Fn(C)) {
        let mut state = self.state();
        let state = &mut *state;
        for (id, entry) in state.rooms_wanted.drain() {
            state.by_process.remove(&(entry.caller.process(), id));
            tell(entry.caller);
        }
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
    pub fn fail_all(&self, down: D, tell: impl Fn(C, &D)) {
        let mut state = self.state();
        let down = state.down.get_or_insert(down).clone();
        state.by_process.clear();
        let state = &mut *state;
        for (_, entry) in state.entries.drain().chain(state.rooms_wanted.drain()) {
            tell(entry.caller, &down);
        }
    }

    /// Requests and waiting callers in the table.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.entries.len() + state.rooms_wanted.len()
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
    use std::cell::{Cell, RefCell};
    use std::cmp::Ordering;

    impl Caller for &'static str {
        type Process = &'static str;

        fn process(&self) -> &'static str {
            self
        }
    }

    type Table = Pending<&'static str, &'static str>;

    const ANY: usize = usize::MAX;

    fn told(table: &Table, id: u64) -> (Option<&'static str>, Result<(), Unasked>) {
        let mut told = None;
        let result = table.answer(id, |caller| told = Some(caller));
        (told, result)
    }

    fn sent(table: &Table, caller: &'static str) -> u64 {
        let id = table.begin(caller, ANY).unwrap();
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
        let room = table.wait_for_room("waits", ANY).unwrap();
        for id in [0, 2, 1 << 40, u64::MAX, room] {
            assert_eq!(told(&table, id), (None, Err(Unasked::NeverWas(id))));
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_request_whose_caller_dies_is_cancelled_once_and_never_before_it_is_submitted() {
        let table = Table::new();
        let sent = sent(&table, "dies");
        let submitting = table.begin("dies", ANY).unwrap();
        let other = table.begin("lives", ANY).unwrap();
        table.wait_for_room("dies", ANY).unwrap();
        assert_eq!(table.abandon("dies"), [sent]);
        assert!(table.submitted(submitting));
        assert!(!table.submitted(submitting));
        assert!(!table.submitted(other));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_end_tells_everybody_and_whoever_comes_later() {
        let table = Table::new();
        sent(&table, "sent");
        table.begin("submitting", ANY).unwrap();
        table.wait_for_room("waiting", ANY).unwrap();
        let told = RefCell::new(Vec::new());
        table.fail_all("down", |caller, down| told.borrow_mut().push((caller, *down)));
        table.fail_all("again", |caller, down| told.borrow_mut().push((caller, *down)));
        told.borrow_mut().sort_unstable();
        assert_eq!(*told.borrow(), [("sent", "down"), ("submitting", "down"), ("waiting", "down")]);
        assert_eq!(table.begin("late", ANY), Err(Refused::Down("down")));
        assert_eq!(table.wait_for_room("late", ANY), Err(Refused::Down("down")));
    }

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// A process that counts how often it is compared with another.
    #[derive(Clone, Copy)]
    struct Process(u64);

    impl Caller for Process {
        type Process = Process;

        fn process(&self) -> Process {
            *self
        }
    }

    impl Ord for Process {
        fn cmp(&self, other: &Self) -> Ordering {
            LOOKS.set(LOOKS.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Process {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl PartialEq for Process {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }

    impl Eq for Process {}

    /// Comparisons that it takes to abandon one of `waiting` processes, one after the other, until none is left.
    fn looks_per_death(waiting: u64) -> u64 {
        let table = Pending::<Process, ()>::new();
        for process in 0..waiting {
            let id = table.begin(Process(process), ANY).unwrap();
            assert!(!table.submitted(id));
        }
        LOOKS.set(0);
        for process in 0..waiting {
            assert_eq!(table.abandon(Process(process)).len(), 1);
        }
        assert!(table.is_empty());
        LOOKS.get() / waiting
    }

    #[test]
    fn the_death_of_a_caller_costs_the_same_however_many_others_wait() {
        // Both logarithmic: a table that is searched as a whole takes twenty times as many.
        assert!(looks_per_death(10_000) < 4 * looks_per_death(500));
    }

    #[test]
    fn there_are_never_more_than_the_limit_and_those_who_wait_for_room_count() {
        let table = Table::new();
        let first = table.begin("a", 2).unwrap();
        table.wait_for_room("b", 2).unwrap();
        assert_eq!(table.begin("c", 2), Err(Refused::TooMany(2)));
        assert_eq!(table.wait_for_room("c", 2), Err(Refused::TooMany(2)));
        table.answer(first, |_| ()).unwrap();
        table.begin("c", 2).unwrap();
        assert_eq!(table.begin("d", 2), Err(Refused::TooMany(2)));
    }

    #[test]
    fn nothing_is_left_of_a_caller_however_its_request_ends() {
        let table = Table::new();
        let answered = sent(&table, "a");
        table.answer(answered, |_| ()).unwrap();
        let forgotten = sent(&table, "a");
        table.forget(forgotten);
        let room = table.wait_for_room("a", ANY).unwrap();
        table.room(|_| ());
        assert!(!table.forget(room));
        let abandoned = table.begin("a", ANY).unwrap();
        table.abandon("a");
        table.submitted(abandoned);
        sent(&table, "a");
        table.fail_all("down", |_, _| ());
        let state = table.state();
        assert!(state.entries.is_empty() && state.rooms_wanted.is_empty() && state.by_process.is_empty());
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
