//! Shared memory between the VM and Python: one *arena* per direction, a sparse file in memory (memfd) of which both have a
//! descriptor. A large body lies in a *slot* of it, and only the slot's place travels through the pipe.
//!
//! The VM never maps an arena. It writes and reads with system calls, which fail where an access to mapped memory would raise
//! SIGBUS: whatever Python does to the file, and even if there is no memory for a page, the VM gets an error, and the body
//! travels through the pipe. Nor does the VM look at anything that Python may still change: what it reads is a copy of its own.
//!
//! Who owns what: slots towards Python are the VM's to hand out ([`Slots`]), and Python gives them back. Slots from Python are Python's
//! to hand out, and the VM gives them back as soon as it has read them. Both files are emptied when the worker ends, so that
//! their memory goes back at once even if a descriptor of Python's has got to a process that lives on.

mod slots;

pub use slots::{ALIGN, Slot, Slots, Unknown};

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use thiserror::Error;

/// Bytes of a body from which on it travels through shared memory.
pub const WORTH: usize = 256 * 1024;

/// Bytes that are copied at a time, before other tasks get their turn.
pub const PIECE: usize = 1024 * 1024;

/// A sparse file in memory: it has as many pages as have been written to, and not been given back.
#[derive(Debug)]
pub struct Arena {
    file: File,
    size: u64,
}

impl Arena {
    /// An arena of `size` bytes, whose size nobody can change.
    ///
    /// # Errors
    /// Those of the system; on systems other than Linux always.
    pub fn new(size: u64) -> io::Result<Self> {
        let file = memory_file()?;
        file.set_len(size)?;
        seal(&file)?;
        Ok(Arena { file, size })
    }

    /// Its size.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes to a slot.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Reads from a slot, at least a byte.
    ///
    /// # Errors
    /// Those of the system.
    pub fn read(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.file.read_at(into, offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }

    /// Gives memory back to the system; the range reads as zeros afterwards.
    pub fn give_back(&self, range: std::ops::Range<u64>) {
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
    // What is in it is never run: says so where the kernel knows the flag, as some systems demand.
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
fn punch(file: &File, range: &std::ops::Range<u64>) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let (Ok(start), Ok(length)) = (i64::try_from(range.start), i64::try_from(range.end - range.start)) else {
        return;
    };
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    // Memory that is not given back now is given back with the file.
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
fn punch(_file: &File, _range: &std::ops::Range<u64>) {}

/// Where a body from Python lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From the start of the arena.
    pub offset: u64,
    /// Bytes in the body.
    pub length: u64,
}

/// Bytes that say where a body lies.
pub const PLACE_LEN: usize = 16;

/// A place that Python cannot have meant.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a body of {} bytes at {} of shared memory of {size} bytes", .place.length, .place.offset)]
pub struct Misplaced {
    place: Place,
    size: u64,
}

/// Reads a place in an arena of `size` bytes.
///
/// # Errors
/// [`Misplaced`] when it lies beyond the end.
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

/// The record of a `DROP` frame that gives a slot back to Python: as that of a handle, and of a kind of its own.
#[must_use]
pub fn drop_record(offset: u64) -> [u8; 13] {
    let mut record = [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    record[1..9].copy_from_slice(&offset.to_le_bytes());
    record
}

/// What Python says about a slot towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotReport {
    /// Python has read the frame that names it.
    Taken(u64),
    /// Nobody in Python looks at it any more.
    Free(u64),
}

/// Bytes of the report about one slot.
const REPORT_LEN: usize = 9;

/// Reads the body of a `SLOTS` frame. `None` for one that does not consist of reports.
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
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn pages(arena: &Arena) -> i64 {
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
