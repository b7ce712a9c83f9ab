//! Parses frames from bytes that arrive in pieces of any size.

use super::inbound::Inbound;
use super::{Body, LEAST_ROOM};
use crate::frame::{self, FrameError, HEADER_LEN, Header, SHARED, SPARE};
use std::future::Future;
use std::io;

/// The size of the buffer out of which small frames are parsed, many per system call. Tests use a small one, so that short
/// input reaches its limits.
const BUFFER: usize = if cfg!(any(fuzzing, test)) { 64 } else { LEAST_ROOM };

/// The limit of what is allocated for a body before its first byte arrives, because the announced length may be wrong. Pages
/// that nothing has written to take only address space.
pub(crate) const ADVANCE: usize = if cfg!(any(fuzzing, test)) { 96 } else { 64 * 1024 * 1024 };

/// Why no more frames come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The pipe ended between two frames.
    EndOfFile,
    /// The pipe ended inside a frame. Says how much of it arrived.
    CutShort(String),
    /// Python broke the protocol, there was no memory, or reading failed.
    Broken(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Broken(format!("reading from Python failed: {error}"))
    }
}

impl From<FrameError> for ReadError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::CutShort { .. } => ReadError::CutShort(error.to_string()),
            _ => ReadError::Broken(error.to_string()),
        }
    }
}

pub(crate) fn no_memory(length: usize) -> ReadError {
    ReadError::Broken(format!("the VM has no memory for a frame of {length} bytes from Python"))
}

/// A source of bytes.
pub(crate) trait Bytes: Send {
    /// Reads what is there into `buffer`, at least one byte. Returns 0 at end of file.
    fn read(&mut self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
    /// A hint that `more` bytes will be read next.
    fn expect(&mut self, _more: usize) {}
    /// A hint that the expected bytes have been read.
    fn expect_no_more(&mut self) {}
}

pub(crate) struct FrameReader<R> {
    source: R,
    /// `buffer[start..end]` has arrived and has not been parsed.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The most bytes of a value. A body may have [`SPARE`] more.
    limit: u64,
    /// The arena for bodies in shared memory.
    pub(crate) inbound: Option<Inbound>,
}

impl<R: Bytes> FrameReader<R> {
    pub(crate) fn new(source: R, limit: u64) -> Self {
        FrameReader { source, buffer: vec![0; BUFFER], start: 0, end: 0, limit, inbound: None }
    }

    /// The next frame.
    #[cfg(any(fuzzing, test))]
    pub(crate) async fn frame<T: Body>(&mut self) -> Result<(Header, T), ReadError> {
        let header = self.header().await?;
        self.content(header).await
    }

    /// Reads the body of a frame, from the pipe or from shared memory. The header that it returns is the same for both.
    pub(crate) async fn content<T: Body>(&mut self, header: Header) -> Result<(Header, T), ReadError> {
        let length = self.length(header, header.length)?;
        if header.flags & SHARED == 0 {
            return Ok((header, self.body(length).await?));
        }
        // Put back below, but not after an error: then nothing more is read.
        let Some(mut inbound) = self.inbound.take() else {
            let Header { kind, flags, .. } = header;
            return Err(FrameError::UnknownFlags { kind: kind as u8, flags }.into());
        };
        let place = inbound.place(&self.body::<Vec<u8>>(length).await?)?;
        let body = inbound.read(place.offset, self.length(header, place.length)?).await?;
        self.inbound = Some(inbound);
        Ok((Header { flags: header.flags & !SHARED, length: place.length, ..header }, body))
    }

    /// Checks the length of a body.
    fn length(&self, header: Header, length: u64) -> Result<usize, ReadError> {
        let kind = header.kind as u8;
        if length > self.limit.saturating_add(SPARE) {
            return Err(FrameError::TooLarge { kind, length, limit: self.limit }.into());
        }
        usize::try_from(length).map_err(|_| FrameError::TooLong { kind, length }.into())
    }

    pub(crate) async fn header(&mut self) -> Result<Header, ReadError> {
        loop {
            let unparsed = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(header) = frame::read_header(unparsed)? {
                self.start += header.kind.header_len();
                return Ok(header);
            }
            let length = unparsed.len();
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, length);
            let free = self.buffer.get_mut(length..).unwrap_or_default();
            match self.source.read(free).await? {
                0 if length == 0 => return Err(ReadError::EndOfFile),
                0 => {
                    return Err(
                        FrameError::CutShort { got: length as u64, expected: HEADER_LEN as u64 }.into()
                    );
                }
                read => self.end += read,
            }
        }
    }

    /// Reads a body from the pipe: copies what is already in the buffer, and reads the rest straight into the body's memory.
    pub(crate) async fn body<T: Body>(&mut self, length: usize) -> Result<T, ReadError> {
        let arrived = self.buffer.get(self.start..self.end).unwrap_or_default();
        let arrived = arrived.get(..length).unwrap_or(arrived);
        let mut filled = arrived.len();
        let mut size = length.min(ADVANCE.max(filled));
        let mut body = T::with_length(size).ok_or_else(|| no_memory(length))?;
        // The buffer holds at most `LEAST_ROOM` bytes, so `room` has space for all of them.
        if let Some(room) = body.room(0).get_mut(..filled) {
            room.copy_from_slice(arrived);
        }
        self.start += filled;
        self.source.expect(length - filled);
        while filled < length {
            if filled == size {
                size = length.min(size.saturating_mul(2));
                if !body.grow(size) {
                    return Err(no_memory(length));
                }
            }
            match self.source.read(body.room(filled)).await? {
                0 => return Err(FrameError::CutShort { got: filled as u64, expected: length as u64 }.into()),
                read => filled += read,
            }
        }
        self.source.expect_no_more();
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    struct Endless(Vec<u8>);

    impl Bytes for Endless {
        async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(if length == 0 { buffer.len() } else { length })
        }
    }

    /// Memory of at most 200 bytes.
    struct Small(Vec<u8>);

    impl Body for Small {
        fn with_length(length: usize) -> Option<Self> {
            (length <= 200).then(|| Small(vec![0; length]))
        }

        fn grow(&mut self, length: usize) -> bool {
            length <= 200 && self.0.grow(length)
        }

        fn room(&mut self, from: usize) -> &mut [u8] {
            self.0.room(from)
        }
    }

    /// Reads a frame that claims to have `length` bytes.
    fn read(length: u64, limit: u64) -> Result<Header, ReadError> {
        let mut header = vec![0; HEADER_LEN];
        Header { length, ..Header::new(Kind::Result, 1) }.write(&mut header);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(FrameReader::new(Endless(header), limit).frame::<Small>());
        read.map(|(header, _)| header)
    }

    #[test]
    fn a_body_beyond_the_limit_and_what_is_spare_is_refused_before_there_is_memory_for_it() {
        let reason = "frame of kind 0x83 with 1048677 bytes, and the limit is 100 (limits: [reply: bytes])";
        assert_eq!(read(100 + SPARE + 1, 100), Err(ReadError::Broken(reason.into())));
        let reason = "the VM has no memory for a frame of 1048676 bytes from Python";
        assert_eq!(read(100 + SPARE, 100), Err(ReadError::Broken(reason.into())));
        assert!(read(150, u64::MAX).is_ok());
    }

    #[test]
    fn a_body_for_which_there_is_no_memory_is_an_error_that_says_its_size() {
        let reason = "the VM has no memory for a frame of 3221225472 bytes from Python";
        assert_eq!(read(3 << 30, 4 << 30), Err(ReadError::Broken(reason.into())));
    }
}
