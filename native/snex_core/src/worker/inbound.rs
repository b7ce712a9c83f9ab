//! Bodies from Python that lie in shared memory: the VM copies them into memory of its own.

use super::Body;
use super::frame_reader::{ADVANCE, ReadError, no_memory};
use crate::shared_memory::{Arena, PIECE, PLACE_LEN, Place, read_place};
use std::sync::Arc;

/// The arena from Python, for one reader of frames.
pub(crate) struct Inbound {
    arena: Arc<Arena>,
    /// The offset of the slot that was copied last, until [`Inbound::take_copied_slot`].
    copied: Option<u64>,
}

impl Inbound {
    pub(crate) fn new(arena: Arc<Arena>) -> Self {
        Inbound { arena, copied: None }
    }

    /// The offset of a slot that has been copied. The caller gives it back to Python.
    pub(crate) fn take_copied_slot(&mut self) -> Option<u64> {
        self.copied.take()
    }

    /// Parses the place of a body, which travels through the pipe instead of the body.
    pub(crate) fn place(&self, bytes: &[u8]) -> Result<Place, ReadError> {
        let place: &[u8; PLACE_LEN] = bytes
            .try_into()
            .map_err(|_| ReadError::Broken(format!("{} bytes as the place of a body", bytes.len())))?;
        read_place(*place, self.arena.size()).map_err(|error| ReadError::Broken(error.to_string()))
    }

    /// Copies a body. If Python writes to the slot during the copy, the copy may have some of that, and stays as it is.
    pub(crate) async fn read<T: Body>(&mut self, offset: u64, length: usize) -> Result<T, ReadError> {
        let mut size = length.min(ADVANCE);
        // The remainder of an offset is that of its last bytes.
        let mut body = T::in_step(size, offset as usize).ok_or_else(|| no_memory(length))?;
        let mut filled = 0;
        let mut pause = PIECE;
        while filled < length {
            if filled == size {
                size = length.min(size.saturating_mul(2));
                if !body.grow(size) {
                    return Err(no_memory(length));
                }
            }
            filled += self.arena.read(body.room(filled), offset + filled as u64)?;
            if filled >= pause {
                pause = filled + PIECE;
                tokio::task::yield_now().await;
            }
        }
        self.copied = Some(offset);
        Ok(body)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::frame::{HANDLES, HEADER_LEN, Header, Kind, SHARED};
    use crate::worker::frame_reader::{Bytes, FrameReader};
    use std::io;

    struct Slice(Vec<u8>);

    impl Bytes for Slice {
        async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    /// Reads a frame whose body lies in an arena of 3 MiB, full of sevens.
    fn read(body: &[u8], limit: u64, arena: bool) -> Result<(Header, Vec<u8>, Option<u64>), ReadError> {
        let mut bytes = vec![0; HEADER_LEN];
        let length = body.len() as u64;
        Header { flags: SHARED | HANDLES, length, ..Header::new(Kind::Result, 1) }.write(&mut bytes);
        bytes.extend_from_slice(body);
        let mut reader = FrameReader::new(Slice(bytes), limit);
        if arena {
            let arena = Arena::new(3 << 20).unwrap();
            arena.write(&vec![7; 3 << 20], 0).unwrap();
            reader.inbound = Some(Inbound::new(Arc::new(arena)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (header, body) = runtime.block_on(reader.frame())?;
        Ok((header, body, reader.inbound.as_mut().and_then(Inbound::take_copied_slot)))
    }

    fn place(offset: u64, length: u64) -> Vec<u8> {
        [offset.to_le_bytes(), length.to_le_bytes()].concat()
    }

    #[test]
    fn a_body_is_copied_and_its_slot_given_back() {
        let (header, body, read) = read(&place(65_536, 2_500_000), u64::MAX, true).unwrap();
        assert_eq!((header.flags, header.length, read), (HANDLES, 2_500_000, Some(65_536)));
        assert!(body == vec![7; 2_500_000]);
    }

    #[test]
    fn a_place_that_python_cannot_have_meant_is_refused() {
        let broken = |reason: &str| Err(ReadError::Broken(reason.into()));
        let beyond = "a body of 3145729 bytes at 0 of shared memory of 3145728 bytes";
        assert_eq!(read(&place(0, (3 << 20) + 1), u64::MAX, true), broken(beyond));
        assert_eq!(read(b"short", u64::MAX, true), broken("5 bytes as the place of a body"));
        let unknown = "frame of kind 0x83 with unknown flags 0x90";
        assert_eq!(read(&place(0, 1), u64::MAX, false), broken(unknown));
        let large = "frame of kind 0x83 with 2000000 bytes, and the limit is 100 (limits: [reply: bytes])";
        assert_eq!(read(&place(0, 2_000_000), 100, true), broken(large));
    }
}
