//! The capacity of the pipes that carry frames.
//!
//! A large value travels faster through a large pipe, because it takes fewer wake-ups. But the system limits the size of all
//! pipes of a user (64 MiB on Linux, see pipe(7)); beyond the limit, new pipes get a single page. So a pipe is large only
//! while a large value is on its way.
//!
//! If the system refuses, or cannot change the size, the pipe stays as it is and only the speed suffers.

use std::os::fd::AsFd;
use std::time::Duration;

/// The usual capacity in bytes.
const USUAL: usize = 256 * 1024;

/// The capacity while a large value is on its way.
const LARGE: usize = 1024 * 1024;

/// The size from which on a value is worth the two system calls.
const WORTH: usize = 2 * LARGE;

/// The pause before [`PipeSize::restore`] is tried again on a pipe that held too much.
pub(super) const AGAIN: Duration = Duration::from_millis(100);

/// The capacity of one pipe, as set through this end of it.
#[derive(Default)]
pub(super) struct PipeSize {
    large: bool,
}

impl PipeSize {
    /// Whether the pipe is large, so that [`PipeSize::restore`] has to follow.
    pub(super) fn is_large(&self) -> bool {
        self.large
    }

    /// Makes the pipe large if the next `bytes` bytes are worth it.
    pub(super) fn prepare(&mut self, pipe: impl AsFd, bytes: usize) {
        if bytes >= WORTH && !self.large {
            self.large = resize(pipe, LARGE);
        }
    }

    /// Gives the pipe its usual capacity again. If it still holds more than that, it stays large for now.
    pub(super) fn restore(&mut self, pipe: impl AsFd) {
        if self.large {
            self.large = !resize(pipe, USUAL);
        }
    }
}

/// Gives a new pipe its size.
pub(super) fn usual(pipe: impl AsFd) {
    resize(pipe, USUAL);
}

#[cfg(target_os = "linux")]
fn resize(pipe: impl AsFd, bytes: usize) -> bool {
    i32::try_from(bytes)
        .is_ok_and(|bytes| nix::fcntl::fcntl(pipe, nix::fcntl::FcntlArg::F_SETPIPE_SZ(bytes)).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn resize(_pipe: impl AsFd, _bytes: usize) -> bool {
    false
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use std::io::{Read, Write};

    fn size(pipe: impl AsFd) -> usize {
        usize::try_from(fcntl(pipe, FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap()
    }

    #[test]
    fn a_pipe_is_large_only_for_a_large_value() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (mut reader, mut writer) = (std::fs::File::from(reader), std::fs::File::from(writer));
        usual(&writer);
        assert_eq!(size(&writer), USUAL);
        let mut pipe_size = PipeSize::default();
        pipe_size.prepare(&writer, WORTH - 1);
        assert!(!pipe_size.is_large() && size(&writer) == USUAL);
        pipe_size.prepare(&writer, WORTH);
        assert!(pipe_size.is_large() && size(&writer) == LARGE);

        writer.write_all(&vec![0; USUAL + 1]).unwrap();
        pipe_size.restore(&writer);
        assert!(pipe_size.is_large() && size(&writer) == LARGE);
        reader.read_exact(&mut vec![0; USUAL + 1]).unwrap();
        pipe_size.restore(&writer);
        assert!(!pipe_size.is_large() && size(&writer) == USUAL);
    }
}
