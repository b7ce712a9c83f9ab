//! Shared memory between the VM and Python: one *arena* per direction, a sparse memory file (memfd) of which both sides have a
//! descriptor. A large buffer or body lies in a *slot* of the arena, and only its place travels through the pipe.
//!
//! The VM never accesses a mapping of an arena. It reads and writes with system calls, which return an error where an access
//! to mapped memory would raise SIGBUS. So whatever Python does to the file, and even if there is no memory for a page, the VM
//! gets an error; a buffer that cannot be written travels through the pipe instead. The VM only uses its own copies, which
//! Python cannot change.
//!
//! Ownership: the VM allocates the slots towards Python ([`Slots`]), and Python gives them back. Python allocates the slots
//! from Python, and the VM gives each back as soon as it has copied the body. When the worker ends, the VM empties both files,
//! so their memory is freed even if another process still has a descriptor.

mod large_pages;
mod slots;

pub use slots::{ALIGN, Slot, Slots, Unknown};

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use thiserror::Error;

/// The size from which on a buffer is worth a slot, in bytes.
pub const WORTH: usize = 256 * 1024;

/// Bytes that are copied before other tasks get their turn.
pub const PIECE: usize = 1024 * 1024;

/// Copies by the kernel between memory and a file take twice as long if the two places have different distances from a multiple
/// of this. (Measured on an AMD EPYC with Linux 6.18: 64 MiB are read in 5 ms or in 10.7, and written in 8 or in 12.5. A
/// program's own copies are hardly affected.)
pub const CACHE_LINE: usize = 64;

/// The least number of bytes to skip from `place` on to be in the same place of a cache line as `other`.
#[must_use]
pub fn lead(place: usize, other: usize) -> usize {
    other.wrapping_sub(place) % CACHE_LINE
}

/// A sparse memory file. It has only the pages that have been written to and not given back.
#[derive(Debug)]
pub struct Arena {
    file: File,
    size: u64,
}

impl Arena {
    /// An arena of `size` bytes, whose size nobody can change.
    ///
    /// # Errors
    /// Those of the system. Always fails on systems other than Linux.
    pub fn new(size: u64) -> io::Result<Self> {
        let file = memory_file()?;
        file.set_len(size)?;
        seal(&file)?;
        Ok(Arena { file, size })
    }

    /// The size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes to a slot.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads from a slot, at least one byte. Returns the number of bytes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(into, offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }

    /// The part of a range that [`Arena::allocate_large`] can give large pages. It may be empty.
    #[must_use]
    pub fn large_part(range: &Range<u64>) -> Range<u64> {
        large_pages::whole(range)
    }

    /// Allocates large pages, where the system has some, for a range that has no memory yet. This takes milliseconds.
    pub fn allocate_large(&self, range: &Range<u64>) {
        large_pages::allocate(&self.file, range);
    }

    /// Gives memory back to the system; the range reads as zeros afterwards.
    pub fn give_back(&self, range: Range<u64>) {
        punch(&self.file, &range);
    }
}

impl std::os::fd::AsFd for Arena {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.give_back(0..self.size);
    }
}

#[cfg(target_os = "linux")]
fn memory_file() -> io::Result<File> {
    use std::os::fd::FromRawFd;
    // Some systems demand that memory files are marked as not executable. Older kernels do not know the flag.
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    for flags in [flags | libc::MFD_NOEXEC_SEAL, flags] {
        // SAFETY: the name ends with a NUL; the rest are plain numbers.
        let fd = unsafe { libc::memfd_create(c"snex".as_ptr(), flags) };
        if fd >= 0 {
            // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
            return Ok(unsafe { File::from_raw_fd(fd) });
        }
    }
    Err(io::Error::last_os_error())
}

#[cfg(target_os = "linux")]
fn seal(file: &File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn punch(file: &File, range: &Range<u64>) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let (Ok(start), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
        return;
    };
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    // After an error the memory stays allocated until the file is closed.
    let _ = fallocate(file, flags, start, length);
}

#[cfg(not(target_os = "linux"))]
fn memory_file() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn seal(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn punch(_file: &File, _range: &Range<u64>) {}

/// Where in its arena a body from Python lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the start of the arena.
    pub offset: u64,
    /// Bytes in the body.
    pub length: u64,
}

/// The length of an encoded [`Place`].
pub const PLACE_LEN: usize = 16;

/// A place that is not inside the arena.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a body of {} bytes at {} of shared memory of {size} bytes", .place.length, .place.offset)]
pub struct Misplaced {
    place: Place,
    size: u64,
}

/// Reads a place in an arena of `size` bytes.
///
/// # Errors
/// [`Misplaced`] if it reaches beyond the end.
pub fn read_place(bytes: [u8; PLACE_LEN], size: u64) -> Result<Place, Misplaced> {
    let number = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let place = Place { offset: number(0), length: number(8) };
    match place.offset.checked_add(place.length) {
        Some(end) if end <= size => Ok(place),
        _ => Err(Misplaced { place, size }),
    }
}

/// The record of a `DROP` frame that gives a slot back to Python. It has the layout of a handle's record, and kind 2.
#[must_use]
pub fn drop_record(offset: u64) -> [u8; 13] {
    let mut record = [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    record[1..9].copy_from_slice(&offset.to_le_bytes());
    record
}

/// A report from Python about the slot towards it at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotReport {
    /// Python has read the frame that names the slot.
    Taken(u64),
    /// Nothing in Python refers to the slot any more.
    Free(u64),
}

/// The length of an encoded [`SlotReport`].
const REPORT_LEN: usize = 9;

/// Reads the body of a `SLOTS` frame; `None` if it does not consist of reports.
pub fn read_slot_reports(body: &[u8]) -> Option<impl Iterator<Item = SlotReport> + '_> {
    let (records, rest) = body.as_chunks::<REPORT_LEN>();
    let known = |record: &[u8; REPORT_LEN]| record[0] <= 1;
    (rest.is_empty() && records.iter().all(known)).then(|| {
        records.iter().map(|[what, offset @ ..]| match what {
            0 => SlotReport::Taken(u64::from_le_bytes(*offset)),
            _ => SlotReport::Free(u64::from_le_bytes(*offset)),
        })
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
pub(crate) mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// The memory of an arena, in bytes.
    pub(crate) fn pages(arena: &Arena) -> i64 {
        nix::sys::stat::fstat(arena.as_fd()).unwrap().st_blocks * 512
    }

    #[test]
    fn an_arena_takes_memory_only_for_what_is_in_it() {
        let arena = Arena::new(1 << 40).unwrap();
        assert_eq!(pages(&arena), 0);
        arena.write(&[7; 8192], 1 << 39).unwrap();
        assert_eq!(pages(&arena), 8192);
        let mut seen = [0; 4096];
        assert_eq!(arena.read(&mut seen, (1 << 39) + 4096).unwrap(), 4096);
        assert_eq!(seen, [7; 4096]);
        arena.give_back(1 << 39..(1 << 39) + 4096);
        assert_eq!(pages(&arena), 4096);
    }

    #[test]
    fn nobody_can_change_its_size_or_seal_it_otherwise() {
        let arena = Arena::new(1 << 20).unwrap();
        let other = File::from(arena.as_fd().try_clone_to_owned().unwrap());
        assert!(other.set_len(1 << 19).is_err());
        assert!(other.set_len(1 << 21).is_err());
        let seal = nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_WRITE);
        assert!(nix::fcntl::fcntl(&other, seal).is_err());
    }

    #[test]
    fn its_memory_goes_back_though_another_descriptor_lives_on() {
        let arena = Arena::new(1 << 20).unwrap();
        arena.write(&[7; 8192], 0).unwrap();
        let other = arena.as_fd().try_clone_to_owned().unwrap();
        drop(arena);
        assert_eq!(nix::sys::stat::fstat(&other).unwrap().st_blocks, 0);
    }

    #[test]
    fn large_pages_are_allocated_only_where_they_fit() {
        let page = large_pages::LARGE_PAGE;
        assert_eq!(Arena::large_part(&(1..3 * page + 1)), page..3 * page);
        for small in [0..0, 0..page - 1, 1..page + 1, page - 1..2 * page - 1, u64::MAX - 1..u64::MAX] {
            assert!(Arena::large_part(&small).is_empty(), "{small:?}");
        }
    }

    /// Whether the kernel gives memory files large pages on request.
    fn gives_large_pages() -> bool {
        let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let system = nix::sys::utsname::uname().unwrap();
        let version: Vec<u32> = system
            .release()
            .to_str()
            .unwrap()
            .split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect();
        version >= vec![6, 1]
            && std::fs::read_to_string(setting).is_ok_and(|setting| !setting.contains("[deny]"))
    }

    #[test]
    fn large_pages_are_allocated_where_the_system_has_some() {
        let page = large_pages::LARGE_PAGE;
        // The system may have none at hand now and then.
        let has_large = (0..20).any(|_| {
            let arena = Arena::new(8 * page).unwrap();
            arena.allocate_large(&(2 * page..4 * page));
            pages(&arena) == 2 * page as i64
        });
        assert_eq!(has_large, gives_large_pages());
    }

    #[test]
    fn memory_with_large_pages_is_as_empty_and_writable_as_before() {
        let page = large_pages::LARGE_PAGE;
        let arena = Arena::new(8 * page).unwrap();
        arena.write(&[7], 2 * page - 1).unwrap();
        arena.allocate_large(&(2 * page..4 * page));
        // Where the system has no large pages at hand, there is one small page for each of them.
        assert!([4096 + 2 * page as i64, 3 * 4096].contains(&pages(&arena)), "{}", pages(&arena));
        let mut seen = vec![1; 2 * page as usize + 1];
        assert_eq!(arena.read(&mut seen, 2 * page - 1).unwrap(), seen.len());
        assert_eq!((seen[0], seen[1..].iter().all(|byte| *byte == 0)), (7, true));
        arena.write(&seen, 2 * page).unwrap();
        arena.give_back(2 * page..5 * page);
        assert_eq!(pages(&arena), 4096);
        arena.allocate_large(&(0..0));
    }

    #[test]
    fn a_place_beyond_the_end_is_refused() {
        let place = |offset: u64, length: u64| {
            let mut bytes = [0; PLACE_LEN];
            bytes[..8].copy_from_slice(&offset.to_le_bytes());
            bytes[8..].copy_from_slice(&length.to_le_bytes());
            bytes
        };
        assert_eq!(read_place(place(10, 90), 100), Ok(Place { offset: 10, length: 90 }));
        assert!(read_place(place(10, 91), 100).is_err());
        let error = read_place(place(u64::MAX, 2), 100).unwrap_err().to_string();
        assert_eq!(error, "a body of 2 bytes at 18446744073709551615 of shared memory of 100 bytes");
    }

    #[test]
    fn reports_come_in_whole_records_of_known_kinds() {
        let body = [&[0][..], &7u64.to_le_bytes(), &[1], &9u64.to_le_bytes()].concat();
        assert_eq!(
            read_slot_reports(&body).unwrap().collect::<Vec<_>>(),
            [SlotReport::Taken(7), SlotReport::Free(9)]
        );
        assert!(read_slot_reports(&body[..17]).is_none());
        assert!(read_slot_reports(&[2; 9]).is_none());
    }
}
