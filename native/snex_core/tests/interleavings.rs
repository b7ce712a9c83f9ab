//! The protocol around [`Pending`] and [`Outbox`], in every order in which threads can do their parts of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p snex_core --test interleavings --release`; `bin/test` does that in a target folder
//! of its own. The threads here take the steps that the NIFs and the worker's tasks take (`snex_nif/src/request.rs`,
//! `snex_nif/src/interpreter.rs`, `worker/streams.rs`), in the same order.

#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs)]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use snex_core::frame::{Frame, Header, Kind};
use snex_core::handles::{Alive, Key, Kind as HandleKind};
use snex_core::outbox::{Outbox, Submitted};
use snex_core::pending::{Pending, Waiter};
use std::io::Read;
use std::sync::atomic::AtomicUsize;

/// What Python can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Request(u64),
    Cancel(u64),
}

/// What the callers of a process were told. Not loom's: nobody decides anything by it before all threads are done.
#[derive(Clone, Default)]
struct Told {
    process: u8,
    count: std::sync::Arc<AtomicUsize>,
}

impl Told {
    fn of(process: u8) -> Self {
        Told { process, ..Told::default() }
    }

    fn once_more(&self) {
        self.count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn times(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Waiter for Told {
    type Process = u8;

    fn process(&self) -> u8 {
        self.process
    }
}

type Table = Pending<Told, &'static str>;
type Pipe = Mutex<Vec<Sent>>;

/// There may be any number of requests.
const ANY: usize = usize::MAX;

/// Python answers the first request that it finds.
fn answer(table: &Table, pipe: &Pipe) {
    let first = pipe.lock().unwrap().first().copied();
    if let Some(Sent::Request(id)) = first {
        table.answer(id, |told| told.once_more()).unwrap();
    }
}

#[test]
fn each_caller_is_told_exactly_one_outcome() {
    loom::model(|| {
        let table = Arc::new(Table::new());
        let pipe = Arc::new(Pipe::default());
        let told = Told::default();
        let caller = thread::spawn({
            let (table, pipe, told) = (table.clone(), pipe.clone(), told.clone());
            move || match table.begin(told.clone(), ANY) {
                Ok(id) => {
                    pipe.lock().unwrap().push(Sent::Request(id));
                    assert!(!table.submitted(id));
                }
                Err(_down) => told.once_more(),
            }
        });
        let python = thread::spawn({
            let (table, pipe) = (table.clone(), pipe.clone());
            move || answer(&table, &pipe)
        });
        table.fail_all("down", |told, _down| told.once_more());
        caller.join().unwrap();
        python.join().unwrap();
        assert_eq!(told.times(), 1);
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn the_request_of_a_caller_that_dies_is_cancelled_once_and_behind_its_frame() {
    loom::model(|| {
        let table = Arc::new(Table::new());
        let pipe = Arc::new(Pipe::default());
        let dead = Arc::new(AtomicBool::new(false));
        let told = Told::default();
        let caller = thread::spawn({
            let (table, pipe, dead, told) = (table.clone(), pipe.clone(), dead.clone(), told.clone());
            move || {
                let id = table.begin(told, ANY).unwrap();
                // The monitor of a process that is dead cannot be made, and that of one that lives is told of its death.
                if dead.load(Ordering::SeqCst) {
                    table.forget(id);
                    return;
                }
                pipe.lock().unwrap().push(Sent::Request(id));
                if table.submitted(id) {
                    pipe.lock().unwrap().push(Sent::Cancel(id));
                }
            }
        });
        let python = thread::spawn({
            let (table, pipe) = (table.clone(), pipe.clone());
            move || answer(&table, &pipe)
        });
        dead.store(true, Ordering::SeqCst);
        for id in table.abandon(0) {
            pipe.lock().unwrap().push(Sent::Cancel(id));
        }
        caller.join().unwrap();
        python.join().unwrap();
        let sent = pipe.lock().unwrap().clone();
        match (told.times(), &sent[..]) {
            (1, [Sent::Request(1)]) | (0, [] | [Sent::Request(1), Sent::Cancel(1)]) => (),
            other => panic!("{other:?}"),
        }
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn the_death_of_one_caller_takes_nothing_from_another() {
    loom::model(|| {
        let table = Arc::new(Table::new());
        let (dies, lives) = (Told::of(1), Told::of(2));
        let first = table.begin(dies.clone(), ANY).unwrap();
        let caller = thread::spawn({
            let (table, lives) = (table.clone(), lives.clone());
            move || {
                let id = table.begin(lives, ANY).unwrap();
                assert!(!table.submitted(id));
                table.answer(id, |told| told.once_more()).unwrap();
            }
        });
        let death = thread::spawn({
            let table = table.clone();
            move || table.abandon(1).len()
        });
        let cancelled_behind_its_frame = usize::from(table.submitted(first));
        caller.join().unwrap();
        // One of the two cancels it.
        assert_eq!(death.join().unwrap() + cancelled_behind_its_frame, 1);
        assert_eq!((dies.times(), lives.times()), (0, 1));
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn whoever_waits_for_room_is_told_when_there_is_or_finds_it() {
    loom::model(|| {
        let (mut reader, writer) = nix::unistd::pipe().map(|(r, w)| (std::fs::File::from(r), w)).unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let mut outbox = Outbox::<Vec<u8>>::new(std::sync::Arc::new(writer), 10, 20);
        let frame = Frame::new(Header::new(Kind::Eval, 1), &[0; 200_000]);
        assert_eq!(outbox.submit(frame), Submitted::Queued);
        let outbox = Arc::new(Mutex::new(outbox));
        let table = Arc::new(Table::new());
        let told = Told::default();

        let writer = thread::spawn({
            let (table, outbox) = (table.clone(), outbox.clone());
            move || {
                let mut room = false;
                let mut outbox = outbox.lock().unwrap();
                while !outbox.is_empty() {
                    let _ = reader.read(&mut vec![0; 65_536]).unwrap();
                    room |= outbox.flush().unwrap();
                }
                drop(outbox);
                if room {
                    table.notify_room(|told| told.once_more());
                }
            }
        });
        let mut waits = false;
        if outbox.lock().unwrap().is_full() {
            let id = table.wait_for_room(told.clone(), ANY).unwrap();
            waits = outbox.lock().unwrap().wait_if_full() || !table.forget(id);
        }
        writer.join().unwrap();
        assert_eq!(told.times(), usize::from(waits));
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn whoever_finds_room_just_as_the_interpreter_goes_down_knows_whether_it_has_been_told() {
    loom::model(|| {
        let table = Arc::new(Table::new());
        let told = Told::default();
        let end = thread::spawn({
            let table = table.clone();
            move || table.fail_all("down", |told, _down| told.once_more())
        });
        // There was no room before, and there is now. Whoever finds its entry gone has a message, and has to wait for it.
        let waits = table.wait_for_room(told.clone(), ANY).is_ok_and(|id| !table.forget(id));
        end.join().unwrap();
        assert_eq!(told.times(), usize::from(waits));
        assert_eq!(table.len(), 0);
    });
}

#[test]
fn a_handle_that_is_released_twice_and_dropped_while_it_is_kept_gives_its_count_back_once() {
    loom::model(|| {
        let key = Key { kind: HandleKind::Object, id: 1 };
        let alive = Arc::new(Alive::default());
        let handle = Arc::new(alive.receive(key));
        let other = alive.receive(key);
        let released = thread::spawn({
            let (alive, handle) = (alive.clone(), handle.clone());
            move || alive.release(key, Some(&handle))
        });
        let dropped = thread::spawn({
            let alive = alive.clone();
            move || if other.is_released() { 0 } else { alive.dropped(key) }
        });
        alive.keep(key);
        let mut given_back = alive.release(key, Some(&handle));
        given_back += released.join().unwrap() + dropped.join().unwrap();
        assert!(handle.is_released());
        assert_eq!((given_back, alive.len_of(HandleKind::Object)), (2, 0));
    });
}
