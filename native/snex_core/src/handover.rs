//! Memory that Python hands over: a value of the VM's that was never copied.
//!
//! It is a memory file of its own, which Python sends over a socket (`SCM_RIGHTS`), beside the pipes: so the VM gets exactly the file
//! that Python has, also from another container or user, and needs no right to look into another process.
//!
//! The proof that nobody can change it any more is its seals: against writing, which the kernel gives only while the file is
//! mapped for writing nowhere, and against changes of its size. All of its pages are there before it is mapped, so reading it
//! raises no signal. The mapping belongs to the VM: what becomes of Python does not concern it.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// Set in the number of memory that is handed over, among those of objects.
pub const MEMORY: u64 = 1 << 63;

/// Files that may have arrived before the frames that name them.
const MOST_WAITING: usize = 1024;

/// The most descriptors that come with a number: one. Room for more, so that they are seen, and closed.
const ROOM: usize = 4;

/// The VM's end of the socket.
pub struct Handover {
    socket: UnixStream,
    /// Files whose frames have not come, by their numbers. They go with this, or when their frame comes.
    arrived: Mutex<BTreeMap<u64, OwnedFd>>,
    /// Bytes that a value may have.
    limit: u64,
}

impl Handover {
    /// Both ends: ours, and the one for Python.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(limit: u64) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Handover { socket: ours, arrived: Mutex::default(), limit }, theirs.into()))
    }

    /// Takes the memory with this number. Never waits: Python sends it before the frame that names it.
    ///
    /// # Errors
    /// A sentence about what Python cannot have meant, or what there is no memory for.
    pub fn take(&self, number: u64) -> Result<Memory, String> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(file) = arrived.remove(&number) {
                return Memory::new(&file, self.limit);
            }
            if arrived.len() >= MOST_WAITING {
                return Err(format!("{MOST_WAITING} memory files that no frame names"));
            }
            let Some((other, file)) = self.receive()? else {
                return Err(format!("memory {} that has not been handed over", number & !MEMORY));
            };
            arrived.insert(other, file);
        }
    }

    /// The next file that has arrived, and its number.
    fn receive(&self) -> Result<Option<(u64, OwnedFd)>, String> {
        let mut number = [0; 8];
        let mut space = nix::cmsg_space!([RawFd; ROOM]);
        let mut slices = [IoSliceMut::new(&mut number)];
        let flags = MsgFlags::MSG_DONTWAIT | CLOSE_ON_EXEC;
        let socket = self.socket.as_raw_fd();
        let message = match recvmsg::<()>(socket, &mut slices, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(format!("receiving memory has failed: {error}")),
        };
        let mut files = Vec::new();
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for this message; nobody else knows them.
                files.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let read = message.bytes;
        match <[OwnedFd; 1]>::try_from(files) {
            Ok([file]) if read == number.len() => Ok(Some((u64::from_le_bytes(number), file))),
            Err(files) if files.is_empty() && read == 0 => Ok(None),
            _ => Err(format!("{read} bytes instead of a number and a memory file")),
        }
    }
}

#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: MsgFlags = MsgFlags::MSG_CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: MsgFlags = MsgFlags::empty();

/// Memory that nobody can change, mapped for reading.
#[derive(Debug)]
pub struct Memory {
    address: *const u8,
    length: usize,
}

// SAFETY: the memory is only read, and unmapped once, by its owner.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps a file of at most `limit` bytes, if that is safe.
    #[cfg(target_os = "linux")]
    fn new(file: &OwnedFd, limit: u64) -> Result<Self, String> {
        use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
        use nix::unistd::{Whence, lseek};
        let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        let seals = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|_| "a file that is no memory".to_string())?;
        if !SealFlag::from_bits_truncate(seals).contains(needed) {
            return Err("memory that can still be changed".into());
        }
        let size = nix::sys::stat::fstat(file.as_fd()).map_err(|error| error.to_string())?.st_size;
        let length = usize::try_from(size).unwrap_or_default();
        if length == 0 || length as u64 > limit {
            return Err(format!("memory of {size} bytes, and the limit is {limit} (limits: [reply: bytes])"));
        }
        // Pages that are not there would be made when they are read, or raise a signal. To look for the first of them takes a third
        // of the time that it takes to ask for all.
        if lseek(file, 0, Whence::SeekHole) != Ok(size) {
            fallocate(file, FallocateFlags::empty(), 0, size)
                .map_err(|error| format!("the VM has no memory for {size} bytes from Python: {error}"))?;
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping, wherever the kernel likes.
        let address =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(format!("memory of {size} bytes cannot be mapped: {}", io::Error::last_os_error()));
        }
        Ok(Memory { address: address.cast_const().cast(), length })
    }

    #[cfg(not(target_os = "linux"))]
    fn new(_file: &OwnedFd, _limit: u64) -> Result<Self, String> {
        Err("memory from Python, which this system cannot seal".into())
    }
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped until this is dropped, and sealed: no page of it changes or goes.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nobody has a reference any more.
        unsafe { libc::munmap(self.address.cast_mut().cast(), self.length) };
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::fs::File;
    use std::io::IoSlice;
    use std::os::unix::fs::FileExt;

    const SEALS: [SealFlag; 3] = [SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW, SealFlag::F_SEAL_WRITE];

    fn file(content: &[u8], seals: &[SealFlag]) -> File {
        // SAFETY: the name ends with a NUL; the rest are plain numbers.
        let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_ALLOW_SEALING) };
        assert!(fd >= 0);
        // SAFETY: the kernel has just made this descriptor.
        let file = unsafe { File::from_raw_fd(fd) };
        file.write_all_at(content, 0).unwrap();
        for seal in seals {
            fcntl(&file, FcntlArg::F_ADD_SEALS(*seal)).unwrap();
        }
        file
    }

    fn send(socket: &OwnedFd, bytes: &[u8], files: &[&File]) {
        let raw: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn memory_is_found_by_its_number_whatever_has_come_before() {
        let (handover, theirs) = Handover::new(1000).unwrap();
        for number in 1..=3u64 {
            send(&theirs, &number.to_le_bytes(), &[&file(&[number as u8; 10], &SEALS)]);
        }
        drop(theirs);
        for number in [2, 3, 1] {
            assert_eq!(handover.take(number).unwrap().as_ref(), [number as u8; 10]);
        }
        assert_eq!(handover.take(1 | MEMORY).unwrap_err(), "memory 1 that has not been handed over");
    }

    #[test]
    fn memory_that_can_be_changed_is_refused() {
        let (handover, theirs) = Handover::new(1000).unwrap();
        for missing in SEALS {
            let seals: Vec<_> = SEALS.into_iter().filter(|seal| *seal != missing).collect();
            send(&theirs, &1u64.to_le_bytes(), &[&file(b"content", &seals)]);
            assert_eq!(handover.take(1).unwrap_err(), "memory that can still be changed");
        }
    }

    #[test]
    fn what_is_no_memory_or_has_no_size_that_a_value_may_have_is_refused() {
        let (handover, theirs) = Handover::new(1000).unwrap();
        let send = |file: &File| send(&theirs, &1u64.to_le_bytes(), &[file]);
        send(&File::open("/dev/zero").unwrap());
        assert_eq!(handover.take(1).unwrap_err(), "a file that is no memory");
        send(&file(b"", &SEALS));
        assert!(handover.take(1).unwrap_err().starts_with("memory of 0 bytes"));
        send(&file(&[7; 1001], &SEALS));
        assert!(handover.take(1).unwrap_err().starts_with("memory of 1001 bytes, and the limit is 1000"));
    }

    #[test]
    fn holes_are_filled_before_it_is_mapped() {
        let (handover, theirs) = Handover::new(1 << 20).unwrap();
        for content in [&[][..], &[0; 4096], &[0; 1 << 19]] {
            let sparse = file(content, &[]);
            sparse.set_len(1 << 20).unwrap();
            for seal in SEALS {
                fcntl(&sparse, FcntlArg::F_ADD_SEALS(seal)).unwrap();
            }
            send(&theirs, &1u64.to_le_bytes(), &[&sparse]);
            assert!(handover.take(1).unwrap().as_ref().iter().all(|byte| *byte == 0));
            assert_eq!(nix::sys::stat::fstat(sparse.as_fd()).unwrap().st_blocks, 2048);
        }
    }

    #[test]
    fn messages_of_another_form_are_refused() {
        for (bytes, count) in [(&[1; 8][..], 0), (&[1; 8], 2), (&[1; 3], 1), (&[1; 3], 0)] {
            let (handover, theirs) = Handover::new(1000).unwrap();
            let file = file(b"content", &SEALS);
            send(&theirs, bytes, &vec![&file; count]);
            drop(theirs);
            assert!(handover.take(1).unwrap_err().ends_with("instead of a number and a memory file"));
        }
    }
}
