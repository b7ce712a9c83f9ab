//! Large pages for memory files.
//!
//! The first write to a page of a file allocates it. With pages of 4 KiB, that takes longer than the copy; so does freeing them.
//! Since Linux 6.1, a memory file gets pages of 2 MiB on request, whatever the system's settings prefer (madvise(2),
//! `MADV_COLLAPSE`). They make later copies faster, too.

use std::fs::File;
use std::ops::Range;

/// The size of a large page on most machines. Where it is another one, the kernel refuses, and the pages stay small.
pub(super) const LARGE_PAGE: u64 = 2 * 1024 * 1024;

/// The large pages that lie in a range as a whole.
pub(super) fn whole(range: &Range<u64>) -> Range<u64> {
    let start = range.start.checked_next_multiple_of(LARGE_PAGE).unwrap_or(range.end);
    let end = range.end / LARGE_PAGE * LARGE_PAGE;
    start..end.max(start)
}

/// Allocates large pages for a range of whole ones that has no memory yet. If the system has none, the pages stay small.
///
/// The kernel wants the file to be mapped at an address that is a multiple of their size. Nobody reads or writes this mapping,
/// so that no access can raise a signal. The pages stay with the file when it is unmapped.
#[cfg(target_os = "linux")]
pub(super) fn allocate(file: &File, range: &Range<u64>) {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::ptr::null_mut;

    let length = range.end.saturating_sub(range.start);
    let (Ok(length), Ok(offset)) = (usize::try_from(length), libc::off_t::try_from(range.start)) else {
        return;
    };
    let around = length.saturating_add(LARGE_PAGE as usize);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses addresses that are free.
    let reserved = unsafe { libc::mmap(null_mut(), around, libc::PROT_NONE, flags, -1, 0) };
    if reserved == libc::MAP_FAILED {
        return;
    }
    // The kernel only replaces pages that exist, so each large page gets a small one first.
    let exist = (range.start..range.end)
        .step_by(LARGE_PAGE as usize)
        .all(|offset| file.write_all_at(&[0], offset).is_ok());
    if exist {
        let skip = reserved.cast::<u8>().align_offset(LARGE_PAGE as usize);
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: `skip` is less than a large page, so this replaces addresses that were reserved above, and only those; the
        // advice does not change what the file contains.
        unsafe {
            let start = reserved.cast::<u8>().add(skip).cast();
            if libc::mmap(start, length, libc::PROT_READ, flags, file.as_raw_fd(), offset) == start {
                libc::madvise(start, length, MADV_COLLAPSE);
            }
        }
    }
    // SAFETY: these addresses were reserved above, and nobody else knows them.
    unsafe { libc::munmap(reserved, around) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn allocate(_file: &File, _range: &Range<u64>) {}

/// Of Linux; not every C library that the crate `libc` describes has it.
#[cfg(target_os = "linux")]
const MADV_COLLAPSE: libc::c_int = 25;
