//! Large pages for large values.
//!
//! The first access to new memory causes a page fault for every 4 KiB, which takes longer than copying 4 KiB. The
//! kernel maps 2 MiB at a time where a program asks for it (`madvise(2)`, `MADV_HUGEPAGE`); most systems don't do so
//! by default.
//!
//! Python returns the memory of a large value to the system when it frees the value, so every large value has these
//! faults. (The VM keeps such memory for later values; there, large pages would not help.)

use std::ffi::c_void;
use std::mem::MaybeUninit;

/// The size from which on a system call is worth it.
const WORTH: usize = 4 << 20;

/// Asks for large pages for `memory`, if it is large. Leaves out the pages at both ends that other values may share.
/// This is a hint, without effect on systems that have no large pages.
pub fn prefer(memory: &mut [MaybeUninit<u8>]) {
    // A multiple of the page size of every supported system: none is larger.
    const PAGE: usize = 64 * 1024;
    if memory.len() < WORTH {
        return;
    }
    let skip = memory.as_ptr().align_offset(PAGE);
    let Some(inner) = memory.get_mut(skip..) else { return };
    let length = inner.len() / PAGE * PAGE;
    let start: *mut c_void = inner.as_mut_ptr().cast();
    // SAFETY: the range is part of `memory`, which is borrowed for the call, and the advice does not change its
    // content.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, length);
}
