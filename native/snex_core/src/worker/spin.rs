//! Polling a pipe for a moment before sleeping on it.
//!
//! A thread that sleeps has to be woken, and where that means an interrupt to another processor, it costs both sides: 20 us each
//! on a virtual machine, which is most of a small call. A steady caller has the next answer sooner than that. So a reader that has lately
//! seen short waits polls before it sleeps. Between two looks it gives up the processor, which somebody else may need to make what it waits
//! for. Python does the same for requests (`_eval/wait.py`).
//!
//! A poll in vain lasts no longer than a few wake-ups would, and after each one that many more short waits have to be seen before
//! the next: twice as many as the last time, up to a limit. Whoever waits for long never polls, so an idle interpreter costs
//! nothing.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Microseconds of one poll, unless the environment variable `SNEX_SPIN` says otherwise.
const SPIN: u64 = 100;

/// The largest such number.
const LONGEST: u64 = 1000;

/// A wait shorter than this many polls, the wake-up included, would have been covered by a poll.
const SHORT: u32 = 4;

const MOST_SHORT_WAITS: u32 = 8;

/// Set while a thread polls. There is one at a time, so that the runtime's other threads serve all the other pipes.
static POLLING: AtomicBool = AtomicBool::new(false);

/// When one reader polls.
pub(super) struct Spin<F> {
    /// How long.
    time: Duration,
    /// Whether polling makes sense just now.
    worth: F,
    /// Short waits to be seen before the next poll, and how many it takes after one in vain.
    left: u32,
    price: u32,
}

impl Spin<fn() -> bool> {
    /// For a reader that always sleeps.
    pub(super) fn never() -> Self {
        Spin::new(Duration::ZERO, || false)
    }
}

impl<F: Fn() -> bool> Spin<F> {
    pub(super) fn new(time: Duration, worth: F) -> Self {
        Spin { time, worth, left: 1, price: 1 }
    }

    /// Calls `look` until it finds something, fails, or the time is over. At once `None` when it does not pay.
    pub(super) fn poll<T>(
        &mut self,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        if self.left > 0 || self.time.is_zero() || !(self.worth)() {
            return Ok(None);
        }
        let Some(_turn) = Turn::take() else {
            return Ok(None);
        };
        let begin = Instant::now();
        loop {
            if let Some(found) = look()? {
                self.price = 1;
                return Ok(Some(found));
            }
            if begin.elapsed() >= self.time {
                break;
            }
            std::thread::yield_now();
        }
        self.left = self.price;
        self.price = MOST_SHORT_WAITS.min(2 * self.price);
        Ok(None)
    }

    /// Notes how long the reader has slept.
    pub(super) fn slept(&mut self, time: Duration) {
        if time < SHORT * self.time {
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// The right to poll, given back when dropped.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!POLLING.swap(true, Ordering::Acquire)).then_some(Turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        POLLING.store(false, Ordering::Release);
    }
}

/// How long a poll lasts on this machine: not at all with a single processor, which the sender needs.
pub(super) fn time() -> Duration {
    static TIME: OnceLock<Duration> = OnceLock::new();
    *TIME.get_or_init(|| {
        // Python refuses a value that is no such number, with an error that says so.
        let microseconds = std::env::var("SNEX_SPIN").ok().and_then(|text| text.parse().ok()).unwrap_or(SPIN);
        match std::thread::available_parallelism() {
            Ok(processors) if processors.get() > 1 => Duration::from_micros(microseconds.min(LONGEST)),
            _ => Duration::ZERO,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::{Mutex, PoisonError};

    /// More than three looks take.
    const TIME: Duration = Duration::from_secs(60);

    /// Tests that poll take turns: there is one poll at a time.
    static ONE: Mutex<()> = Mutex::new(());

    /// How often a poll looks, if it finds something in its third look, or never.
    fn looks<F: Fn() -> bool>(spin: &mut Spin<F>, finds: bool) -> u32 {
        let looks = Cell::new(0);
        let found = spin.poll(|| {
            looks.set(looks.get() + 1);
            Ok((finds && looks.get() == 3).then_some(()))
        });
        assert_eq!(found.unwrap().is_some(), finds && looks.get() == 3);
        looks.get()
    }

    fn warm<F: Fn() -> bool>(worth: F) -> Spin<F> {
        let mut spin = Spin::new(TIME, worth);
        spin.slept(TIME);
        spin
    }

    #[test]
    fn a_reader_polls_after_a_short_wait_and_as_long_as_polls_find_something() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spin = Spin::new(TIME, || true);
        assert_eq!(looks(&mut spin, true), 0);
        spin.slept(SHORT * TIME);
        assert_eq!(looks(&mut spin, true), 0);
        spin.slept(TIME);
        assert_eq!(looks(&mut spin, true), 3);
        assert_eq!(looks(&mut spin, true), 3);
    }

    #[test]
    fn each_poll_in_vain_doubles_the_short_waits_before_the_next_one_up_to_a_limit() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Duration::from_micros(1);
        let mut spin = Spin::new(time, || true);
        spin.slept(time);
        for price in [1, 2, 4, 8, 8] {
            assert_ne!(looks(&mut spin, false), 0);
            for _ in 0..price {
                assert_eq!(looks(&mut spin, false), 0);
                spin.slept(time);
            }
        }
    }

    #[test]
    fn nothing_is_polled_where_it_makes_no_sense_or_while_another_reader_polls() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(looks(&mut warm(|| false), true), 0);
        assert_eq!(looks(&mut Spin::never(), true), 0);
        let mut spin = warm(|| true);
        let turn = Turn::take().unwrap();
        assert_eq!(looks(&mut spin, true), 0);
        drop(turn);
        assert_eq!(looks(&mut spin, true), 3);
    }

    #[test]
    fn an_error_ends_a_poll_and_gives_the_turn_back() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spin = warm(|| true);
        assert!(spin.poll(|| Err::<Option<()>, _>(io::Error::other("broken"))).is_err());
        assert!(Turn::take().is_some());
    }
}
