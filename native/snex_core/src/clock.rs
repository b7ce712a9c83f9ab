//! The clock that all processes of one machine share.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The current time of `CLOCK_MONOTONIC` in nanoseconds. Python reads the same clock. `None` if the system has no such clock.
pub fn monotonic() -> Option<u64> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?);
    u64::try_from(now.as_nanos()).ok()
}
