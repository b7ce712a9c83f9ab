//! Memory that Python hands over: the VM gets the value without any copy.
//!
//! Each value has a memory file (memfd) of its own, which Python sends over a socket beside the pipes (`SCM_RIGHTS`). So the
//! VM gets exactly Python's file, even from another container or user, and needs no right to inspect another process.
//!
//! Seals prove that nobody can change the file any more: one against writing, which the kernel refuses while the file is
//! mapped for writing anywhere, and two against changes of its size. All pages are allocated before the file is mapped, so
//! reading it raises no signal. The mapping belongs to the VM and outlives Python.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// In a table of handles, this bit marks the number of memory that is handed over; other numbers are those of objects.
pub const MEMORY: u64 = 1 << 63;

/// How many files may arrive before the frames that name them.
const MOST_WAITING: usize = if cfg!(test) { 4 } else { 1024 };

/// Room for the descriptors of one message. There should be one; room for more lets the VM see that there are too many.
const ROOM: usize = 4;

/// The VM's end of the socket.
pub struct Handover {
    socket: UnixStream,
    /// Files that no frame has named yet, by number. Closed when this is dropped, if no frame names them before.
    arrived: Mutex<BTreeMap<u64, OwnedFd>>,
    /// The most bytes of a value.
    limit: u64,
}

impl Handover {
    /// Makes a socket, and returns our end and the one for Python.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(limit: u64) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Handover { socket: ours, arrived: Mutex::default(), limit }, theirs.into()))
    }

    /// Takes and maps the memory with this number. Never waits: Python sends memory before the frame that names it.
    ///
    /// # Errors
    /// Says how Python broke the protocol, or that there is no memory.
    pub fn take_memory(&self, number: u64) -> Result<Memory, String> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = arrived.remove(&number) {
            return Memory::new(&file, self.limit);
        }
        while let Some((other, file)) = self.receive()? {
            if other == number {
                return Memory::new(&file, self.limit);
            }
            if arrived.len() == MOST_WAITING {
                return Err(format!("more than {MOST_WAITING} memory files that no frame names"));
            }
            // A frame could mean either of the two.
            if arrived.insert(other, file).is_some() {
                return Err(format!("memory {} that has been handed over twice", other & !MEMORY));
            }
        }
        Err(format!("memory {} that has not been handed over", number & !MEMORY))
    }

    /// Receives the next file and its number, or `None` if no message has arrived.
    fn receive(&self) -> Result<Option<(u64, OwnedFd)>, String> {
        let mut number = [0; 8];
        let (read, files) = match receive_files(self.socket.as_fd(), &mut number) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(format!("receiving memory has failed: {error}")),
        };
        match <[OwnedFd; 1]>::try_from(files) {
            Ok([file]) if read == number.len() => Ok(Some((u64::from_le_bytes(number), file))),
            Err(files) if files.is_empty() && read == 0 => Ok(None),
            _ => Err(format!("{read} bytes instead of a number and a memory file")),
        }
    }
}

/// Receives one message: returns the number of its bytes, and up to [`ROOM`] of its descriptors. The kernel closes the others.
///
/// This does not use nix, which returns no descriptors if some are missing, for want of room here or of free descriptors in
/// this process. Those that the kernel did install would then stay open for ever.
fn receive_files(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    const FILES: usize = ROOM * size_of::<RawFd>();
    // SAFETY: arithmetic with a small number.
    const SPACE: usize = unsafe { libc::CMSG_SPACE(FILES as u32) } as usize;
    // An array of `u64` has the alignment that the header needs.
    let mut space = [0u64; SPACE.div_ceil(8)];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: numbers and null pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    // SAFETY: both buffers live longer than the call, and are as long as it says.
    let read =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | CLOSE_ON_EXEC) };
    let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
    let mut files = Vec::new();
    // SAFETY: the kernel has written the headers, which refer only to data in `space`. It has just installed these descriptors
    // for this message, so nobody else owns them.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. }) = header.as_ref() {
            if (*cmsg_level, *cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let length: usize = *cmsg_len as _;
                let length = length.saturating_sub(libc::CMSG_LEN(0) as usize);
                let first = libc::CMSG_DATA(header).cast::<RawFd>();
                let raw = (0..length / size_of::<RawFd>()).map(|index| first.add(index).read_unaligned());
                files.extend(raw.map(|fd| OwnedFd::from_raw_fd(fd)));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Ok((read, files))
}

#[cfg(target_os = "linux")]
const CLOSE_ON_EXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const CLOSE_ON_EXEC: libc::c_int = 0;

/// Sealed memory, mapped for reading.
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
    /// Maps a file of at most `limit` bytes, if its seals make that safe.
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
        // Reading a hole would allocate a page, or raise a signal. Looking for a hole first takes a third of the time of
        // allocating all pages at once.
        if lseek(file, 0, Whence::SeekHole) != Ok(size) {
            fallocate(file, FallocateFlags::empty(), 0, size)
                .map_err(|error| format!("the VM has no memory for {size} bytes from Python: {error}"))?;
        }
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: the kernel chooses an address that is free, so this overlaps no other memory.
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
        // SAFETY: the memory stays mapped until this is dropped, and the seals keep it from changing or shrinking.
        unsafe { std::slice::from_raw_parts(self.address, self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this owns the mapping, and all references to it borrow from this, so none is left.
        unsafe { libc::munmap(self.address.cast_mut().cast(), self.length) };
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
