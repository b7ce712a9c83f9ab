#![allow(clippy::unwrap_used)]

use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// What a pool has asked of its surroundings.
#[derive(Debug, PartialEq)]
enum Asked {
    Wake,
    Idle,
    Worn(u32),
    Fail(&'static str),
}

#[derive(Clone)]
struct Here {
    asked: Sender<Asked>,
    granted: Sender<(&'static str, Slot<Here>)>,
}

impl Host for Here {
    type Interpreter = u32;
    type Waiter = &'static str;

    fn wake(&self, _pool: &Arc<Pool<Self>>) {
        let _ = self.asked.send(Asked::Wake);
    }

    fn idle(&self) {
        let _ = self.asked.send(Asked::Idle);
    }

    fn worn(&self, interpreter: u32) {
        let _ = self.asked.send(Asked::Worn(interpreter));
    }

    fn grant(&self, waiter: &'static str, slot: Slot<Self>) {
        let _ = self.granted.send((waiter, slot));
    }

    fn fail(&self, waiter: &'static str) {
        let _ = self.asked.send(Asked::Fail(waiter));
    }
}

struct Test {
    pool: Arc<Pool<Here>>,
    asked: Receiver<Asked>,
    granted: Receiver<(&'static str, Slot<Here>)>,
}

impl Test {
    fn new(concurrency: usize, limit: usize, members: u32) -> Self {
        let (asked_in, asked) = channel();
        let (granted_in, granted) = channel();
        let pool = Pool::new(Here { asked: asked_in, granted: granted_in }, concurrency, limit);
        for member in 1..=members {
            pool.join(&pool.member(member, u64::MAX));
        }
        Test { pool, asked, granted }
    }

    fn take(&self) -> Option<Slot<Here>> {
        self.pool.take_slot(Share::One)
    }

    fn member(&self, interpreter: u32) -> Arc<Member<Here>> {
        self.pool.members().iter().find(|member| member.interpreter() == interpreter).cloned().unwrap()
    }

    /// Who has got a slot, and where.
    fn granted(&self) -> Option<(&'static str, u32, Slot<Here>)> {
        self.granted.try_recv().ok().map(|(waiter, slot)| (waiter, slot.member().interpreter(), slot))
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.try_iter().collect()
    }
}

fn place(slot: Option<&Slot<Here>>) -> Option<u32> {
    slot.map(|slot| slot.member().interpreter())
}

#[test]
fn a_call_goes_to_the_least_loaded_member_and_of_these_to_the_first() {
    let test = Test::new(2, 0, 3);
    let slots: Vec<_> = (0..6).map(|_| test.take()).collect();
    let places: Vec<_> = slots.iter().map(|slot| place(slot.as_ref())).collect();
    assert_eq!(places, [Some(1), Some(2), Some(3), Some(1), Some(2), Some(3)]);
    assert!(test.take().is_none());
    drop(slots);
    assert_eq!(place(test.take().as_ref()), Some(1));
}

#[test]
fn what_can_run_nowhere_else_counts_and_never_waits() {
    let test = Test::new(1, 0, 2);
    let member = test.member(1);
    let entered = [member.enter(), member.enter()];
    assert_eq!(member.figures(), (Some(2), 2, true));
    assert_eq!(place(test.take().as_ref()), Some(2));
    let _other = test.take();
    assert!(test.take().is_none());
    drop(entered);
    assert_eq!(place(test.take().as_ref()), Some(1));
}

#[test]
fn those_who_wait_are_served_in_order_and_nobody_overtakes_them() {
    let test = Test::new(1, 2, 1);
    let slot = test.take();
    assert_eq!(test.pool.wait("first", Share::One), Ok(1));
    assert_eq!(test.pool.wait("second", Share::One), Ok(2));
    assert_eq!(test.pool.wait("third", Share::One), Err(Refused::TooMany(2)));
    assert_eq!(test.asked(), [Asked::Wake, Asked::Wake]);
    test.pool.serve();
    assert!(test.granted().is_none());
    drop(slot);
    assert_eq!(test.asked(), [Asked::Wake]);
    // Between the end of one call and the next one's turn.
    assert!(test.take().is_none());
    test.pool.serve();
    let (waiter, _, slot) = test.granted().unwrap();
    assert_eq!(waiter, "first");
    assert!(test.granted().is_none());
    // Who has got it is gone by now.
    drop(slot);
    test.pool.serve();
    assert_eq!(test.granted().unwrap().0, "second");
}

#[test]
fn one_who_gives_up_is_not_served_and_knows_whether_it_was() {
    let test = Test::new(1, 9, 1);
    let slot = test.take();
    let first = test.pool.wait("first", Share::All).unwrap();
    let second = test.pool.wait("second", Share::One).unwrap();
    assert!(test.pool.forget(first));
    assert!(!test.pool.forget(first));
    drop(slot);
    test.pool.serve();
    assert_eq!(test.granted().unwrap().0, "second");
    assert!(!test.pool.forget(second));
    assert_eq!(test.pool.waiting(), 0);
}

#[test]
fn one_who_wants_a_member_alone_gets_an_idle_one_and_those_behind_wait() {
    let test = Test::new(2, 9, 1);
    let one = test.take();
    assert!(test.pool.take_slot(Share::All).is_none());
    test.pool.wait("alone", Share::All).unwrap();
    test.pool.wait("behind", Share::One).unwrap();
    test.pool.serve();
    assert!(test.granted().is_none());
    drop(one);
    test.pool.serve();
    let (waiter, _, alone) = test.granted().unwrap();
    assert_eq!(waiter, "alone");
    assert_eq!(test.member(1).figures().0, None);
    // What belongs to it still can be used.
    let entered = test.member(1).enter();
    test.pool.serve();
    assert!(test.granted().is_none());
    drop(alone);
    test.pool.serve();
    assert_eq!(test.granted().unwrap().0, "behind");
    drop(entered);
}

#[test]
fn a_member_that_leaves_is_not_chosen_and_tells_when_nothing_runs_in_it() {
    let test = Test::new(2, 9, 2);
    let first = test.member(1);
    let slot = test.take();
    test.pool.leave(&first);
    assert_eq!(test.asked(), []);
    let others = [test.take(), test.take()];
    assert_eq!(others.iter().map(|slot| place(slot.as_ref())).collect::<Vec<_>>(), [Some(2), Some(2)]);
    assert!(test.take().is_none());
    drop(slot);
    assert_eq!(test.asked(), [Asked::Idle]);
    test.pool.leave(&test.member(2));
    drop(others);
    assert_eq!(test.asked(), [Asked::Idle]);
}

#[test]
fn a_member_whose_caller_is_still_being_told_has_room_and_is_not_idle() {
    let test = Test::new(1, 9, 1);
    let member = test.member(1);
    let mut slot = test.take().unwrap();
    test.pool.wait("waits", Share::One).unwrap();
    test.asked();
    slot.free();
    slot.free();
    assert_eq!(test.asked(), [Asked::Wake]);
    test.pool.serve();
    let (_, _, mut second) = test.granted().unwrap();
    second.free();
    assert_eq!((member.figures().0, member.is_idle()), (Some(0), false));
    test.pool.leave(&member);
    drop(second);
    assert_eq!((test.asked(), member.is_idle()), (vec![], false));
    drop(slot);
    assert_eq!((test.asked(), member.is_idle()), (vec![Asked::Idle], true));
}

#[test]
fn a_member_that_has_gone_down_is_not_chosen_while_it_is_still_in_the_list() {
    let test = Test::new(1, 9, 2);
    test.member(1).leave();
    assert_eq!(test.asked(), [Asked::Idle]);
    let other = test.take();
    assert_eq!(place(other.as_ref()), Some(2));
    assert!(test.take().is_none());
}

#[test]
fn a_member_that_comes_serves_those_who_wait() {
    let test = Test::new(1, 9, 0);
    assert!(test.take().is_none());
    test.pool.wait("early", Share::One).unwrap();
    test.asked();
    let member = test.pool.member(7, u64::MAX);
    test.pool.serve();
    assert!(test.granted().is_none() && test.asked().is_empty());
    test.pool.join(&member);
    assert_eq!(test.asked(), [Asked::Wake]);
    test.pool.serve();
    assert_eq!(test.granted().unwrap().1, 7);
}

#[test]
fn a_member_is_worn_once_after_its_last_call() {
    let test = Test::new(1, 9, 0);
    let member = test.pool.member(7, 2);
    test.pool.join(&member);
    drop(test.take());
    assert_eq!(test.asked(), []);
    drop(member.enter());
    assert_eq!(test.asked(), [Asked::Worn(7)]);
    drop(test.take());
    assert_eq!(test.asked(), []);
}

#[test]
fn a_member_for_one_call_is_chosen_once_and_so_many_run_at_a_time() {
    let test = Test::new(1, 9, 4);
    test.pool.once(2);
    assert!(test.pool.is_once());
    assert_eq!((test.pool.capacity(), test.pool.running()), (2, 0));
    let first = test.take();
    let second = test.take();
    assert_eq!((place(first.as_ref()), place(second.as_ref())), (Some(1), Some(2)));
    assert!(test.take().is_none());
    assert_eq!((test.pool.running(), test.pool.is_open()), (2, true));
    drop(first);
    assert_eq!(test.asked(), [Asked::Idle]);
    let third = test.take();
    assert_eq!(place(third.as_ref()), Some(3));
    // More of the same call, from within: neither is counted, nor is the member chosen again.
    let within = third.as_ref().unwrap().member().enter();
    drop(third);
    assert_eq!((test.pool.running(), test.asked()), (1, vec![]));
    drop(within);
    assert_eq!(test.asked(), [Asked::Idle]);
    let _fourth = test.take();
    drop(second);
    // None is left, whatever may run.
    assert!(test.take().is_none());
    assert_eq!(test.pool.running(), 1);
    test.pool.once(1);
    test.pool.join(&test.pool.member(9, 1));
    assert!(test.take().is_none());
}

#[test]
fn a_pool_is_open_while_one_more_call_would_run_or_wait() {
    let test = Test::new(2, 1, 0);
    assert!(!test.pool.is_open());
    test.pool.join(&test.pool.member(1, u64::MAX));
    let slots = [test.take(), test.take()];
    assert_eq!((test.pool.capacity(), test.pool.running(), test.pool.is_open()), (2, 2, true));
    let waiting = test.pool.wait("waits", Share::One).unwrap();
    assert!(!test.pool.is_open());
    assert!(test.pool.forget(waiting));
    assert!(test.pool.is_open());
    drop(slots);
    let alone = test.pool.take_slot(Share::All);
    assert_eq!(test.pool.running(), 2);
    drop(alone);
    test.pool.drain();
    assert!(!test.pool.is_open());
}

#[test]
fn a_pool_that_is_drained_serves_those_who_wait_and_nobody_else() {
    let test = Test::new(1, 9, 1);
    let slot = test.take();
    test.pool.wait("waits", Share::One).unwrap();
    test.pool.drain();
    assert_eq!(test.pool.wait("late", Share::One), Err(Refused::Draining));
    test.asked();
    drop(slot);
    assert!(test.take().is_none());
    test.pool.serve();
    let (waiter, _, slot) = test.granted().unwrap();
    assert_eq!(waiter, "waits");
    test.asked();
    drop(slot);
    assert_eq!(test.asked(), [Asked::Idle]);
    assert!(test.take().is_none());
}

#[test]
fn a_pool_that_is_closed_tells_all_who_wait() {
    let test = Test::new(1, 9, 0);
    test.pool.wait("one", Share::One).unwrap();
    test.pool.wait("other", Share::All).unwrap();
    test.asked();
    test.pool.close();
    assert_eq!(test.asked(), [Asked::Fail("one"), Asked::Fail("other")]);
    assert_eq!(test.pool.wait("late", Share::One), Err(Refused::Closed));
}

/// Threads take and wait as fast as they can, and members come and go: nobody is overlooked, no member has too many, and at last
/// nothing is left.
#[test]
fn every_one_of_many_threads_is_served() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2_000;

    #[derive(Clone)]
    struct Threads(Sender<Option<()>>);

    impl Host for Threads {
        type Interpreter = usize;
        type Waiter = Sender<Slot<Threads>>;

        fn wake(&self, _pool: &Arc<Pool<Self>>) {
            let _ = self.0.send(Some(()));
        }

        fn idle(&self) {}

        fn worn(&self, _interpreter: usize) {}

        fn grant(&self, waiter: Self::Waiter, slot: Slot<Self>) {
            // Drops it if nobody is there.
            let _ = waiter.send(slot);
        }

        fn fail(&self, _waiter: Self::Waiter) {}
    }

    let (wake, woken) = channel();
    let pool = Pool::new(Threads(wake.clone()), 2, usize::MAX);
    let running: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    for member in 0..running.len() {
        pool.join(&pool.member(member, u64::MAX));
    }
    thread::scope(|scope| {
        let serving = Arc::clone(&pool);
        scope.spawn(move || woken.iter().take_while(Option::is_some).for_each(|_| serving.serve()));
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, running) = (&pool, &running);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let slot = pool.take_slot(Share::One).unwrap_or_else(|| {
                            let (sender, receiver) = channel();
                            let id = pool.wait(sender, Share::One).unwrap();
                            // Some give up, and some of these too late.
                            if (thread + round) % 7 == 0 && pool.forget(id) {
                                return pool.members().first().unwrap().enter();
                            }
                            receiver.recv().unwrap()
                        });
                        let count = &running[slot.member().interpreter()];
                        assert!(count.fetch_add(1, SeqCst) < 2 + THREADS);
                        count.fetch_sub(1, SeqCst);
                        let mut slot = slot;
                        slot.free();
                        assert!(!slot.member().is_idle());
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(pool.waiting(), 0);
        for member in pool.members().iter() {
            assert_eq!((member.figures().0, member.is_idle()), (Some(0), true));
        }
        pool.close();
        // Ends the thread that serves.
        let _ = wake.send(None);
    });
}
