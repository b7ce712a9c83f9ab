//! Frames, the messages between the VM and Python. `docs/protocol.md` is the specification.

use crate::pickle::BinaryAs;
use thiserror::Error;

/// The version of the protocol that this side speaks, for `HELLO`.
pub const PROTOCOL: u32 = 4;

/// Bytes in the header of a frame, except for the first frame of each side.
pub const HEADER_LEN: usize = 28;

/// Bytes in the header of the first frame of each side, which has no cause. This header is the same in all versions of the
/// protocol, so that each side can read which version the other speaks.
const FIRST_HEADER_LEN: usize = 20;

const MAGIC: [u8; 2] = *b"SX";

/// Flag of a frame towards Python: the body starts with a table of buffers that follow the pickle.
pub const BUFFERS: u8 = 0x01;

/// Flag of a request: it runs in a worker thread.
pub const THREAD: u8 = 0x02;

/// Flag of a request: values that Elixir has no term for stay in Python, and handles are returned in their place.
pub const AUTO: u8 = 0x04;

/// Flag of a request: its result stays in Python, and a handle is returned in its place.
pub const OBJECT: u8 = 0x08;

/// Flag of a frame from Python: the body starts with a table of handles; see [`split_handles`]. The number 0 stands for no
/// object. It says that the term contains a `Snex.Arrow`, which Elixir may convert.
pub const HANDLES: u8 = 0x10;

/// Flag of a request: its result is an iterator, whose items are streamed.
pub const STREAM: u8 = 0x20;

/// Flag of a request with [`STREAM`]: its iterator always runs on the event loop.
pub const LOOP: u8 = 0x40;

/// Flag of a frame from Python: its body lies in shared memory, and the frame has its place.
pub const SHARED: u8 = 0x80;

/// Flag in the type of a buffer: its content lies in a slot of shared memory, and the frame has the slot's offset instead.
pub const IN_SLOT: u8 = 0x80;

/// In a table of buffers, the type of a first entry that is no buffer: the pickle itself lies in a slot. Then the
/// frame has no bytes between the table and the buffers.
pub const PICKLE: u8 = 5;

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The VM's first frame: versions and settings.
    Hello = 0x01,
    /// Run code in an environment.
    Eval = 0x02,
    /// Make an environment.
    MakeEnv = 0x03,
    /// Give back handles of environments and objects, and slots.
    Drop = 0x04,
    /// Cancel the work of one request.
    Cancel = 0x05,
    /// The value that an Elixir function returned to Python.
    CallResult = 0x06,
    /// How an Elixir function that Python called failed.
    CallError = 0x07,
    /// Call a function, or get an attribute.
    Invoke = 0x09,
    /// The consumer of a stream has taken items.
    Credit = 0x0a,
    /// Items for a Python iterator over an Elixir stream.
    Feed = 0x0b,
    /// The end of these items.
    FeedEnd = 0x0c,
    /// Call a function once for each of several elements.
    Map = 0x0d,
    /// Python's first frame: it speaks this protocol.
    Ready = 0x81,
    /// Python's first frame: it does not speak this protocol.
    Refused = 0x82,
    /// The value of a request.
    Result = 0x83,
    /// How a request failed.
    Error = 0x84,
    /// Python calls a function and waits for its result.
    Call = 0x85,
    /// Python calls a function and does not wait.
    Cast = 0x86,
    /// Python sends a message and waits until it is sent.
    Send = 0x87,
    /// Python printed something.
    Print = 0x88,
    /// The work of a cancelled request has ended.
    Cancelled = 0x89,
    /// A log event from Python.
    Log = 0x8a,
    /// Python calls a function that Elixir has passed to it, and waits for its result.
    Apply = 0x8b,
    /// Items of a stream.
    Items = 0x8c,
    /// A Python iterator over an Elixir stream has room for items.
    Pull = 0x8d,
    /// A Python iterator over an Elixir stream wants no more items.
    Close = 0x8e,
    /// Slots of shared memory have been taken, or are free.
    Slots = 0x8f,
}

impl Kind {
    /// Bytes in the header of a frame of this kind.
    #[must_use]
    pub fn header_len(self) -> usize {
        match self {
            Kind::Hello | Kind::Ready | Kind::Refused => FIRST_HEADER_LEN,
            _ => HEADER_LEN,
        }
    }

    /// The kind with this number, if Python may send it.
    fn from_python(byte: u8) -> Option<Kind> {
        [
            Kind::Ready,
            Kind::Refused,
            Kind::Result,
            Kind::Error,
            Kind::Call,
            Kind::Cast,
            Kind::Send,
            Kind::Print,
            Kind::Cancelled,
            Kind::Log,
            Kind::Apply,
            Kind::Items,
            Kind::Pull,
            Kind::Close,
            Kind::Slots,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// The most bytes of a body: what a process on a 64-bit system can address.
pub const MAX_LENGTH: u64 = 1 << 47;

/// How many bytes a body from Python may have beyond the limit in `HELLO`, so that tracebacks and log events arrive even if that
/// limit is small. The same as `SPARE` in `_wire/frame.py`.
pub const SPARE: u64 = 1 << 20;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The kind of the frame.
    pub kind: Kind,
    /// The flags, whose meaning depends on the kind.
    pub flags: u8,
    /// The request or call that the frame belongs to; 0 for none.
    pub id: u64,
    /// In a call from Python, the request whose code made it. In a part of a stream, a number of items. In a request, what the
    /// requesting process is doing for Python. 0 for none. See `docs/protocol.md`.
    pub cause: u64,
    /// Bytes in the body. In a frame from Python it may be wrong, so memory is allocated as the body arrives.
    pub length: u64,
}

impl Header {
    /// A header without flags and cause. The frame that it is written to sets the length.
    #[must_use]
    pub fn new(kind: Kind, id: u64) -> Self {
        Header { kind, flags: 0, id, cause: 0, length: 0 }
    }

    /// Writes the header over the first [`Kind::header_len`] bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than that.
    pub fn write(&self, out: &mut [u8]) {
        out[..2].copy_from_slice(&MAGIC);
        out[2] = self.kind as u8;
        out[3] = self.flags;
        out[4..12].copy_from_slice(&self.id.to_le_bytes());
        out[12..20].copy_from_slice(&self.length.to_le_bytes());
        if self.kind.header_len() == HEADER_LEN {
            out[20..28].copy_from_slice(&self.cause.to_le_bytes());
        }
    }
}

/// How bytes from Python break the protocol.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Something other than Snex wrote to the descriptor.
    #[error("expected a frame, got {}", quote(.0))]
    Garbage(Vec<u8>),
    /// A kind that this side does not know.
    #[error("frame of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A flag that this side does not know.
    #[error("frame of kind {kind:#04x} with unknown flags {flags:#04x}")]
    UnknownFlags {
        /// The frame's kind.
        kind: u8,
        /// The frame's flags.
        flags: u8,
    },
    /// A length that no body can have.
    #[error("frame of kind {kind:#04x} with {length} bytes, more than memory can hold")]
    TooLong {
        /// The frame's kind.
        kind: u8,
        /// The length that it claims.
        length: u64,
    },
    /// A length that Python was told not to exceed.
    #[error(
        "frame of kind {kind:#04x} with {length} bytes, and the limit is {limit} (limits: [reply: bytes])"
    )]
    TooLarge {
        /// The frame's kind.
        kind: u8,
        /// The length that it claims.
        length: u64,
        /// The most bytes of a value.
        limit: u64,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame, after {got} of {expected} bytes")]
    CutShort {
        /// Bytes that arrived.
        got: u64,
        /// Bytes that the frame should have.
        expected: u64,
    },
}

/// The first 64 bytes in readable form, with escapes such as `\n` and `\xNN`.
fn quote(bytes: &[u8]) -> String {
    let shown = bytes.get(..64).unwrap_or(bytes).escape_ascii();
    let ellipsis = if bytes.len() > 64 { "..." } else { "" };
    format!("\"{shown}\"{ellipsis}")
}

/// Reads the header of a frame from Python at the start of `bytes`; `None` if the header is not complete.
///
/// ```
/// use snex_core::frame::{self, Header, Kind};
/// let mut bytes = [0; frame::HEADER_LEN];
/// let header = Header { length: 42, ..Header::new(Kind::Result, 7) };
/// header.write(&mut bytes);
/// assert_eq!(frame::read_header(&bytes), Ok(Some(header)));
/// ```
///
/// # Errors
/// [`FrameError`] as soon as the bytes cannot be the start of a frame. The first byte is enough to recognise garbage.
pub fn read_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let seen = bytes.len().min(MAGIC.len());
    if bytes[..seen] != MAGIC[..seen] {
        return Err(FrameError::Garbage(bytes.to_vec()));
    }
    let Some(first) = bytes.first_chunk::<FIRST_HEADER_LEN>() else {
        return Ok(None);
    };
    let [_, _, kind, flags, ..] = *first;
    let number = |at: usize| bytes.get(at..at + 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (id, length) = (number(4).unwrap_or_default(), number(12).unwrap_or_default());
    let known = Kind::from_python(kind);
    let has_value = matches!(
        known,
        Some(Kind::Result | Kind::Call | Kind::Cast | Kind::Send | Kind::Apply | Kind::Items)
    );
    if flags & !(if has_value { HANDLES | SHARED } else { 0 }) != 0 {
        return Err(FrameError::UnknownFlags { kind, flags });
    }
    if length > MAX_LENGTH {
        return Err(FrameError::TooLong { kind, length });
    }
    let kind = known.ok_or(FrameError::UnknownKind(kind))?;
    let cause = if kind.header_len() == HEADER_LEN { number(20) } else { Some(0) };
    Ok(cause.map(|cause| Header { kind, flags, id, cause, length }))
}

/// Splits a body with [`HANDLES`]: returns the numbers of the objects in its table, and where the term begins. `None` if the
/// body is shorter than its table.
///
/// ```
/// use snex_core::frame::split_handles;
/// let body = [&[1, 0, 0, 0], &7u64.to_le_bytes()[..], b"term"].concat();
/// let (ids, start) = split_handles(&body).unwrap();
/// assert_eq!((ids.collect::<Vec<_>>(), &body[start..]), (vec![7], &b"term"[..]));
/// assert!(split_handles(&body[..11]).is_none());
/// ```
pub fn split_handles(body: &[u8]) -> Option<(impl ExactSizeIterator<Item = u64> + '_, usize)> {
    let (count, rest) = body.split_first_chunk()?;
    let size = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(8)?;
    let (table, _) = rest.as_chunks::<8>();
    let table = table.get(..size / 8)?;
    Some((table.iter().map(|id| u64::from_le_bytes(*id)), count.len() + size))
}

/// A piece of a frame towards Python: bytes that the frame owns, or a large binary that is not copied.
#[derive(Debug)]
pub enum Segment<B> {
    /// The frame's own bytes.
    Owned(Vec<u8>),
    /// A binary of the VM's, which `B` keeps alive.
    Shared(B),
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Segment<B> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Segment::Owned(bytes) => bytes,
            Segment::Shared(bytes) => bytes.as_ref(),
        }
    }
}

/// The offset of a buffer's entry in the table of buffers.
fn table_entry(index: usize) -> usize {
    HEADER_LEN + TABLE_COUNT_LEN + index * TABLE_ENTRY_LEN
}

/// A part of a frame that may lie in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The pickle, or the whole body of a frame without buffers.
    Pickle,
    /// A buffer, by its index in the table.
    Buffer(usize),
}

/// The size from which on a part that Python copies, or loads, is faster in a slot than in the pipe.
const LARGE: usize = 512 * 1024;

/// The size up to which such a part may take memory a second time.
const MOST: usize = 64 * 1024 * 1024;

/// Where in a header the flags are.
const FLAGS: usize = 3;

/// Where in a header the length of the body is.
const LENGTH: std::ops::Range<usize> = 12..20;

/// The index of the segment with the first buffer. The segments before it are the header with the table, and the pickle.
const FIRST_BUFFER: usize = 2;

/// Bytes of the count in front of a table of buffers.
pub(crate) const TABLE_COUNT_LEN: usize = 4;

/// Bytes of an entry in the table: a type and a length.
const TABLE_ENTRY_LEN: usize = 9;

/// A whole frame towards Python, to be written segment by segment.
#[derive(Debug)]
pub struct Frame<B> {
    /// The pieces, in order.
    pub segments: Vec<Segment<B>>,
}

impl<B: AsRef<[u8]>> Frame<B> {
    /// A frame with this body and no buffers.
    pub fn new(header: Header, body: &[u8]) -> Self {
        let mut bytes = vec![0; header.kind.header_len()];
        bytes.extend_from_slice(body);
        Self::from_reserved(header, bytes)
    }

    /// A frame without buffers. The first [`Kind::header_len`] bytes are reserved for the header, so the body is not copied.
    pub fn from_reserved(header: Header, mut bytes: Vec<u8>) -> Self {
        let length = (bytes.len() - header.kind.header_len()) as u64;
        Header { length, ..header }.write(&mut bytes);
        Frame { segments: vec![Segment::Owned(bytes)] }
    }

    /// Bytes in the frame, including the header.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.as_ref().len()).sum()
    }

    /// The number of segments after the pickle, which are the buffers.
    fn buffers(&self) -> usize {
        self.segments.len().saturating_sub(FIRST_BUFFER)
    }

    /// A part of the frame; `None` if there is no such part, and also if it is in a slot.
    pub fn part(&self, part: Part) -> Option<&[u8]> {
        match part {
            Part::Buffer(index) => match self.segments.get(FIRST_BUFFER + index)? {
                Segment::Shared(bytes) => Some(bytes.as_ref()),
                Segment::Owned(_) => None,
            },
            Part::Pickle => match &*self.segments {
                [whole] => whole.as_ref().get(HEADER_LEN..),
                [_, pickle, ..] => Some(pickle.as_ref()).filter(|pickle| !pickle.is_empty()),
                [] => None,
            },
        }
    }

    /// The parts that are faster in a slot of shared memory: buffers of at least `length` bytes that become views in Python, which
    /// reads them in place, and other buffers and pickles from [`LARGE`] to [`MOST`]. The pickle is the last of them.
    pub fn parts_for_slots(&self, length: usize) -> impl Iterator<Item = Part> + '_ {
        let buffers = (0..self.buffers()).map(Part::Buffer);
        buffers.chain([Part::Pickle]).filter(move |part| {
            let lengths = match part {
                Part::Buffer(index) if self.becomes_view(*index) => length..=usize::MAX,
                Part::Buffer(_) | Part::Pickle => LARGE..=MOST,
            };
            self.part(*part).is_some_and(|bytes| lengths.contains(&bytes.len()))
        })
    }

    fn becomes_view(&self, index: usize) -> bool {
        let [Segment::Owned(head), ..] = &*self.segments else { return false };
        let views = [BinaryAs::Memoryview as u8, BinaryAs::Memory as u8];
        head.get(table_entry(index)).is_some_and(|kind| views.contains(kind))
    }

    /// Replaces a part by the offset of the slot that it has been copied to. The pickle has to be the last.
    pub fn replace_by_slot(&mut self, part: Part, offset: u64) {
        let Some(length) = self.part(part).map(<[u8]>::len) else { return };
        let offset = Segment::Owned(offset.to_le_bytes().to_vec());
        match part {
            Part::Buffer(index) => {
                if let Some(Segment::Owned(head)) = self.segments.first_mut()
                    && let Some(kind) = head.get_mut(table_entry(index))
                {
                    *kind |= IN_SLOT;
                    self.segments[FIRST_BUFFER + index] = offset;
                }
            }
            Part::Pickle => {
                let mut head = vec![0; HEADER_LEN];
                head.extend_from_slice(&(self.buffers() as u32 + 1).to_le_bytes());
                head.push(PICKLE | IN_SLOT);
                head.extend_from_slice(&(length as u64).to_le_bytes());
                let old = self.segments.first().map(AsRef::as_ref).unwrap_or_default();
                if self.segments.len() > 1 {
                    head.extend_from_slice(old.get(table_entry(0)..).unwrap_or_default());
                }
                let header = old.get(..HEADER_LEN).unwrap_or_default();
                head[..header.len()].copy_from_slice(header);
                head[FLAGS] |= BUFFERS;
                let buffers = self.segments.drain(..).skip(FIRST_BUFFER);
                self.segments = [Segment::Owned(head), Segment::Owned(Vec::new()), offset]
                    .into_iter()
                    .chain(buffers)
                    .collect();
            }
        }
        let body = (self.len() - HEADER_LEN) as u64;
        if let Some(Segment::Owned(head)) = self.segments.first_mut() {
            head[LENGTH].copy_from_slice(&body.to_le_bytes());
        }
    }

    /// Whether there is nothing to write. Never true for a frame that this module made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests;
