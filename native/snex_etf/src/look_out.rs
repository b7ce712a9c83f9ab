//! The look-out before a sleep (`snex._eval.wait`), without the interpreter's lock: Python's other threads run meanwhile.

use pyo3::prelude::*;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Looks for `seconds` whether there is something to read at a descriptor, for instance an epoll's, whose events are what can be
/// read there. Returns whether there is, or something is wrong with the descriptor.
#[pyfunction]
pub fn look_out(py: Python<'_>, descriptor: RawFd, seconds: f64) -> bool {
    let Ok(duration) = Duration::try_from_secs_f64(seconds) else { return false };
    py.detach(|| {
        let begin = Instant::now();
        while !is_ready(descriptor) {
            if begin.elapsed() >= duration {
                return false;
            }
            // Whoever is to make the next event may need this very processor.
            std::thread::yield_now();
        }
        true
    })
}

fn is_ready(descriptor: RawFd) -> bool {
    let mut look = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives for the length of the call.
    unsafe { libc::poll(&raw mut look, 1, 0) != 0 }
}
