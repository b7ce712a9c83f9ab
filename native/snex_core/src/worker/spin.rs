//! A short spin on a pipe before sleeping on it: the pipe is polled for a moment.
//!
//! Waking a thread that sleeps on another processor takes an interrupt, which costs both sides: 20 us each on a virtual
//! machine, most of the time of a small call. In a series of small calls, the next answer arrives sooner than that. So a
//! reader whose recent waits were short spins before it sleeps. Between two polls it yields the processor, which
//! the sender may need. Python does the same for requests (`_eval/wait.py`).
//!
//! A spin in vain takes as long as a few wake-ups. After each one, the reader has to see twice as many short waits as
//! before, up to a limit, until it spins again. A reader whose waits are long never spins, so an idle
//! interpreter costs nothing.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The length of a spin in microseconds, unless the environment variable `SNEX_SPIN` sets another one.
const SPIN: u64 = 100;

/// The largest value of `SNEX_SPIN`.
const LONGEST: u64 = 1000;

/// A wait is short if it took less than this many spins, including the wake-up: a spin would probably have covered it.
const SHORT: u32 = 4;

/// The limit of `Spin::price`.
const MOST_SHORT_WAITS: u32 = 8;

/// Set while a thread spins. Only one thread may, so that the runtime's other threads serve all other pipes.
static SPINNING: AtomicBool = AtomicBool::new(false);

/// Decides when one reader spins.
pub(super) struct Spin<F> {
    /// The length of a spin.
    time: Duration,
    /// Whether a spin may pay at the moment.
    worth: F,
    /// How many short waits the reader has to see before it spins again.
    left: u32,
    /// What a spin in vain sets `left` to.
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

    /// Calls `look` until it finds something, fails, or the time is over. Returns `None` at once if a spin does not pay.
    pub(super) fn run<T>(
        &mut self,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        if self.left > 0 || self.time.is_zero() || !(self.worth)() {
            return Ok(None);
        }
        let Some(_permit) = Permit::try_acquire() else {
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

    /// Records how long the reader has slept.
    pub(super) fn slept(&mut self, time: Duration) {
        if time < SHORT * self.time {
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// The right to spin, released when dropped.
struct Permit;

impl Permit {
    fn try_acquire() -> Option<Self> {
        (!SPINNING.swap(true, Ordering::Acquire)).then_some(Permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        SPINNING.store(false, Ordering::Release);
    }
}

/// The length of a spin on this machine: zero with a single processor, which the sender needs.
pub(super) fn time() -> Duration {
    static TIME: OnceLock<Duration> = OnceLock::new();
    *TIME.get_or_init(|| {
        // An invalid value is ignored here: Python refuses it with an error message.
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

    /// Longer than three looks take.
    const TIME: Duration = Duration::from_secs(60);

    /// Held by each test that spins, because only one thread of the process may spin at a time.
    static ONE: Mutex<()> = Mutex::new(());

    /// How often a spin looks. It finds something on its third look, or never.
    fn looks<F: Fn() -> bool>(spin: &mut Spin<F>, finds: bool) -> u32 {
        let looks = Cell::new(0);
        let found = spin.run(|| {
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
    fn a_reader_spins_after_a_short_wait_and_as_long_as_spins_find_something() {
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
    fn each_spin_in_vain_doubles_the_short_waits_before_the_next_one_up_to_a_limit() {
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
    fn nobody_spins_where_it_makes_no_sense_or_while_another_reader_spins() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(looks(&mut warm(|| false), true), 0);
        assert_eq!(looks(&mut Spin::never(), true), 0);
        let mut spin = warm(|| true);
        let permit = Permit::try_acquire().unwrap();
        assert_eq!(looks(&mut spin, true), 0);
        drop(permit);
        assert_eq!(looks(&mut spin, true), 3);
    }

    #[test]
    fn an_error_ends_a_spin_and_releases_the_permit() {
        let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spin = warm(|| true);
        assert!(spin.run(|| Err::<Option<()>, _>(io::Error::other("broken"))).is_err());
        assert!(Permit::try_acquire().is_some());
    }
}
