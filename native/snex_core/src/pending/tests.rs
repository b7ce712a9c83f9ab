use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;

impl Waiter for &'static str {
    type Process = &'static str;

    fn process(&self) -> &'static str {
        self
    }
}

type Table = Pending<&'static str, &'static str>;

const ANY: usize = usize::MAX;

fn notified(table: &Table, id: u64) -> (Option<&'static str>, Result<(), UnexpectedAnswer>) {
    let mut notified = None;
    let result = table.answer(id, |caller| notified = Some(caller));
    (notified, result)
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
    assert_eq!(notified(&table, second), (Some("second"), Ok(())));
    assert_eq!(notified(&table, second), (None, Err(UnexpectedAnswer::Duplicate(second))));
    assert_eq!(notified(&table, first), (Some("first"), Ok(())));
    assert_eq!(notified(&table, first), (None, Err(UnexpectedAnswer::Duplicate(first))));
}

#[test]
fn what_comes_before_or_after_an_early_answer_reaches_the_caller_until_it_takes_itself_out() {
    let table = Table::new();
    let id = sent(&table, "caller");
    let notified = Cell::new(0);
    let count = |_: &mut &'static str| notified.set(notified.get() + 1);
    assert_eq!(table.answer_part(id, count), Ok(()));
    assert_eq!(table.answer_early(id, count), Ok(()));
    assert_eq!(table.answer_part(id, count), Ok(()));
    assert_eq!(notified.get(), 3);
    assert_eq!(table.answer_early(id, count), Err(UnexpectedAnswer::Duplicate(id)));
    assert!(table.forget(id));
    assert_eq!(table.answer_part(id, count), Ok(()));
    assert_eq!(table.answer_early(id, count), Err(UnexpectedAnswer::Duplicate(id)));
    assert_eq!(notified.get(), 3);
    for id in [0, 2, u64::MAX] {
        assert_eq!(table.answer_part(id, count), Err(UnexpectedAnswer::Unknown(id)));
        assert_eq!(table.answer_early(id, count), Err(UnexpectedAnswer::Unknown(id)));
    }
}

#[test]
fn an_answer_to_what_was_forgotten_is_late_however_often_it_comes() {
    let table = Table::new();
    let id = sent(&table, "caller");
    assert!(table.forget(id));
    assert!(!table.forget(id));
    assert_eq!(notified(&table, id), (None, Ok(())));
    assert_eq!(notified(&table, id), (None, Ok(())));
}

#[test]
fn an_answer_to_a_request_that_was_never_made_is_told_from_a_late_one() {
    let table = Table::new();
    sent(&table, "caller");
    let room = table.wait_for_room("waits", ANY).unwrap();
    for id in [0, 2, 1 << 40, u64::MAX, room] {
        assert_eq!(notified(&table, id), (None, Err(UnexpectedAnswer::Unknown(id))));
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
fn the_end_is_told_to_those_who_wait_and_to_those_who_come_after_it() {
    let table = Table::new();
    sent(&table, "sent");
    table.begin("submitting", ANY).unwrap();
    table.wait_for_room("waiting", ANY).unwrap();
    let notified = RefCell::new(Vec::new());
    table.fail_all("down", |caller, down| notified.borrow_mut().push((caller, *down)));
    table.fail_all("again", |caller, down| notified.borrow_mut().push((caller, *down)));
    notified.borrow_mut().sort_unstable();
    assert_eq!(*notified.borrow(), [("sent", "down"), ("submitting", "down"), ("waiting", "down")]);
    assert_eq!(table.begin("late", ANY), Err(Refused::Down("down")));
    assert_eq!(table.wait_for_room("late", ANY), Err(Refused::Down("down")));
}

#[test]
fn many_callers_are_told_a_few_at_a_time_and_those_of_the_other_kind_are_not() {
    let table = Table::new();
    let request = sent(&table, "request");
    let many = 3 * BATCH;
    for _ in 0..many {
        table.wait_for_room("waits", ANY).unwrap();
    }
    let notified = Cell::new(0);
    assert!(table.notify_batch(ROOM..=u64::MAX, |_| notified.set(notified.get() + 1)));
    assert_eq!(notified.take(), BATCH);
    table.notify_room(|_| notified.set(notified.get() + 1));
    assert_eq!(notified.take(), many - BATCH);
    assert_eq!(table.len(), 1);
    assert!(table.forget(request));
}

#[test]
fn those_who_begin_to_wait_for_room_while_others_are_told_wait_for_the_next_time() {
    let table = Table::new();
    let first = table.wait_for_room("first", ANY).unwrap();
    let later = table.wait_for_room("later", ANY).unwrap();
    while table.notify_batch(ROOM..=first, |caller| assert_eq!(caller, "first")) {}
    assert!(table.forget(later));
}

thread_local! {
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// A process that counts how often it is compared with another.
#[derive(Clone, Copy)]
struct Process(u64);

impl Waiter for Process {
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
    table.notify_room(|_| ());
    assert!(!table.forget(room));
    let abandoned = table.begin("a", ANY).unwrap();
    table.abandon("a");
    table.submitted(abandoned);
    sent(&table, "a");
    table.fail_all("down", |_, _| ());
    let state = table.state();
    assert!(state.entries.is_empty() && state.by_process.is_empty());
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
                    match notified(&table, id) {
                        (Some(_), Ok(())) => {
                            prop_assert!(!forgotten.contains(&id));
                            prop_assert_eq!(answered.insert(id, ()), None);
                        }
                        (None, Ok(())) => prop_assert!(forgotten.contains(&id) || answered.contains_key(&id)),
                        (None, Err(UnexpectedAnswer::Duplicate(twice))) => {
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
