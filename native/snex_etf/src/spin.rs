//! A short spin before a sleep (`snex._eval.wait`). The GIL is released, so Python's other threads run meanwhile.

use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Polls a descriptor for `seconds`, until it is readable. An epoll descriptor is readable when it has events.
/// Returns whether the descriptor is readable or invalid.
#[pyfunction]
pub fn spin(py: Python<'_>, descriptor: RawFd, seconds: f64) -> bool {
    let Ok(duration) = Duration::try_from_secs_f64(seconds) else { return false };
    py.detach(|| {
        let begin = Instant::now();
        while !is_ready(descriptor) {
            if begin.elapsed() >= duration {
                return false;
            }
            // The process that causes the next event may need this processor.
            std::thread::yield_now();
        }
        true
    })
}

fn is_ready(descriptor: RawFd) -> bool {
    let mut look = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry, which outlives the call.
    unsafe { libc::poll(&raw mut look, 1, 0) != 0 }
}
