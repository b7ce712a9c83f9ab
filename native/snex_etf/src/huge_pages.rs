//! Large pages for large values.
//!
//! Memory that is touched for the first time costs a page fault for every 4 KiB, more than copying the 4 KiB does. The
//! kernel gives out 2 MiB at a time to whoever asks (`madvise(2)`, `MADV_HUGEPAGE`); most systems give none unasked.
//!
//! A value's memory goes back to the system when the value is freed, so every large value pays. (The VM keeps such memory for
//! the next one; there it would not help.)

use std::ffi::c_void;
use std::mem::MaybeUninit;

/// From this size on it is worth a system call. A page at either end may be shared with other values.
const WORTH: usize = 4 << 20;

/// Asks for large pages behind `memory`, if it is large; only the pages that lie in it as a whole are concerned. A hint:
/// systems without such pages go on as before.
pub fn prefer(memory: &mut [MaybeUninit<u8>]) {
    // No system that we run on has larger ones, and pages of 4 KiB divide them.
    const PAGE: usize = 64 * 1024;
    if memory.len() < WORTH {
        return;
    }
    let skip = memory.as_ptr().align_offset(PAGE);
    let Some(inner) = memory.get_mut(skip..) else { return };
    let length = inner.len() / PAGE * PAGE;
    let start: *mut c_void = inner.as_mut_ptr().cast();
    // SAFETY: the range lies in `memory`, which is ours for the time of the call, and the advice changes no content.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, length);
}
