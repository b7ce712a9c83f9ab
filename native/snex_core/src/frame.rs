//! Frames: what travels between the VM and Python. `docs/protocol.md` is the specification.

use crate::pickle::BinaryAs;
use thiserror::Error;

/// Version of the protocol that this side speaks, as `HELLO` states it.
pub const PROTOCOL: u32 = 4;

/// Bytes in a frame's header, but for the first frame of each side.
pub const HEADER_LEN: usize = 28;

/// Bytes in the header of the first frame of each side: the same in all versions of the protocol, so that each side can read
/// which one the other speaks. It has no cause.
const FIRST_HEADER_LEN: usize = 20;

const MAGIC: [u8; 2] = *b"SX";

/// Flag of a frame towards Python: the body starts with a table of buffers that follow the pickle.
pub const BUFFERS: u8 = 0x01;

/// Flag of a request: it runs in a worker thread.
pub const THREAD: u8 = 0x02;

/// Flag of a request: what has no form in Elixir stays in Python, and a handle comes in its place.
pub const AUTO: u8 = 0x04;

/// Flag of a request: its result stays in Python, and a handle comes in its place.
pub const OBJECT: u8 = 0x08;

/// Flag of a frame from Python: the body starts with a table of handles; see [`split_handles`]. A handle of number 0 is of no object: it
/// says that there is a `Snex.Arrow` in the term, of which Elixir may make something else.
pub const HANDLES: u8 = 0x10;

/// Flag of a request: its result is iterated, and answered item by item.
pub const STREAM: u8 = 0x20;

/// Flag of a request with [`STREAM`]: its iterator is advanced on the event loop, whatever it is.
pub const LOOP: u8 = 0x40;

/// Flag of a frame from Python: its body lies in shared memory, and the frame says where.
pub const SHARED: u8 = 0x80;

/// Flag in the type of a buffer: it lies in a slot of shared memory, and its offset stands where its content would be.
pub const IN_SLOT: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The VM's first frame: versions and settings.
    Hello = 0x01,
    /// Run code in an environment.
    Eval = 0x02,
    /// Make an environment.
    MakeEnv = 0x03,
    /// Handles of environments and objects are given back.
    Drop = 0x04,
    /// Cancel the work of one request.
    Cancel = 0x05,
    /// The value that a function called by Python returned.
    CallResult = 0x06,
    /// How a function called by Python failed.
    CallError = 0x07,
    /// Call a function, or get an attribute.
    Invoke = 0x09,
    /// Items of a stream have been taken.
    Credit = 0x0a,
    /// Items for an iterator of Python's.
    Feed = 0x0b,
    /// There are no more of them.
    FeedEnd = 0x0c,
    /// Call a function once for each of several elements.
    Map = 0x0d,
    /// Python's first frame: it speaks our protocol.
    Ready = 0x81,
    /// Python's first frame: it does not.
    Refused = 0x82,
    /// The value of a request.
    Result = 0x83,
    /// How a request failed.
    Error = 0x84,
    /// Python calls a function and waits for what it returns.
    Call = 0x85,
    /// Python calls a function and does not wait.
    Cast = 0x86,
    /// Python sends a message and waits until it is sent.
    Send = 0x87,
    /// Python printed something.
    Print = 0x88,
    /// The work of a cancelled request has come to its end.
    Cancelled = 0x89,
    /// A log event of Python's.
    Log = 0x8a,
    /// Python calls a function that Elixir has handed to it, and waits for what it returns.
    Apply = 0x8b,
    /// Items of a stream.
    Items = 0x8c,
    /// An iterator of Python's has room for items.
    Pull = 0x8d,
    /// An iterator of Python's wants no more items.
    Close = 0x8e,
    /// Slots of shared memory have been taken, or are not needed any more.
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

    /// The kind of a byte that came from Python, if it is one that Python may send.
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

/// Bytes that a body can have at most: what a process of a 64-bit system can address.
pub const MAX_LENGTH: u64 = 1 << 47;

/// What a body from Python may have beyond the limit that `HELLO` tells it, so that errors with their tracebacks, and what is
/// logged, arrive even where that limit is small. As `SPARE` in `_wire/frame.py`.
pub const SPARE: u64 = 1 << 20;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// What to know of it besides.
    pub flags: u8,
    /// The request or call that it belongs to; 0 where there is none.
    pub id: u64,
    /// From Python: the request whose code has sent the frame. Towards Python: the call that the asking process is answering at the
    /// moment. 0 where there is none.
    pub cause: u64,
    /// Bytes in the body. Python's word: memory is only taken as data arrives.
    pub length: u64,
}

impl Header {
    /// The header of a frame without flags and cause; its length is that of the body that it is put in front of.
    #[must_use]
    pub fn new(kind: Kind, id: u64) -> Self {
        Header { kind, flags: 0, id, cause: 0, length: 0 }
    }

    /// Writes it over the first [`Kind::header_len`] bytes of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than that.
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

/// Bytes that are not a frame which Python may send.
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
        /// What a value may have.
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

/// Bytes as a person can read them: `"text\n"` where printable, `\xNN` elsewhere, cut after 64.
fn quote(bytes: &[u8]) -> String {
    let shown = bytes.get(..64).unwrap_or(bytes).escape_ascii();
    let ellipsis = if bytes.len() > 64 { "..." } else { "" };
    format!("\"{shown}\"{ellipsis}")
}

/// Reads the header of a frame from Python at the start of `bytes`; `None` while there are fewer bytes than a header has.
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
/// [`FrameError`] as soon as the bytes cannot become a frame; garbage is recognised by its first byte.
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

/// Takes a body with [`HANDLES`] apart: the numbers of the objects in its table, and where the term begins. `None` for a table
/// that does not fit.
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

/// One piece of a frame on its way to Python: bytes that the frame owns, or a large binary that stays where it is.
#[derive(Debug)]
pub enum Segment<B> {
    /// The frame's own bytes.
    Owned(Vec<u8>),
    /// Somebody else's bytes, kept alive by `B`.
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

/// Where the table says what a buffer is.
fn table_entry(index: usize) -> usize {
    HEADER_LEN + TABLE_COUNT_LEN + index * TABLE_ENTRY_LEN
}

/// The segment of the first buffer: behind the header with the table, and the pickle.
const FIRST_BUFFER: usize = 2;

/// Bytes of the number in front of a table of buffers.
pub(crate) const TABLE_COUNT_LEN: usize = 4;

/// Bytes of an entry in it: a type and a length.
const TABLE_ENTRY_LEN: usize = 9;

/// A whole frame towards Python, ready to be written segment after segment.
#[derive(Debug)]
pub struct Frame<B> {
    /// The pieces, in order.
    pub segments: Vec<Segment<B>>,
}

impl<B: AsRef<[u8]>> Frame<B> {
    /// A frame whose body is `body`, without buffers.
    pub fn new(header: Header, body: &[u8]) -> Self {
        let mut bytes = vec![0; header.kind.header_len()];
        bytes.extend_from_slice(body);
        Self::from_reserved(header, bytes)
    }

    /// A frame without buffers from bytes whose first [`Kind::header_len`] are reserved for the header: no copy of the body.
    pub fn from_reserved(header: Header, mut bytes: Vec<u8>) -> Self {
        let length = (bytes.len() - header.kind.header_len()) as u64;
        Header { length, ..header }.write(&mut bytes);
        Frame { segments: vec![Segment::Owned(bytes)] }
    }

    /// Bytes in the frame, header and all.
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.as_ref().len()).sum()
    }

    /// The bytes of a buffer, by its place in the table of buffers.
    pub fn buffer(&self, index: usize) -> Option<&[u8]> {
        match self.segments.get(FIRST_BUFFER + index)? {
            Segment::Shared(bytes) => Some(bytes.as_ref()),
            Segment::Owned(_) => None,
        }
    }

    /// Whether a buffer is better off in a slot of shared memory: it becomes a view, which reads it there, and has at least `length`
    /// bytes. What Python copies anyway is sooner there through the pipe, where both sides copy at the same time.
    pub fn suits_slot(&self, index: usize, length: usize) -> bool {
        let [Segment::Owned(head), ..] = &*self.segments else { return false };
        let kind = head.get(table_entry(index)).copied();
        let views = [BinaryAs::Memoryview as u8, BinaryAs::Memory as u8];
        kind.is_some_and(|kind| views.contains(&kind))
            && self.buffer(index).is_some_and(|bytes| bytes.len() >= length)
    }

    /// Whether there is such a buffer.
    pub fn has_buffer_for_slot(&self, length: usize) -> bool {
        (FIRST_BUFFER..self.segments.len()).any(|segment| self.suits_slot(segment - FIRST_BUFFER, length))
    }

    /// The content of a buffer has been copied to a slot: only its offset travels with the frame from here on.
    pub fn buffer_is_in_slot(&mut self, index: usize, offset: u64) {
        let length = self.buffer(index).map(<[u8]>::len);
        let [Segment::Owned(head), ..] = &mut *self.segments else { return };
        if let Some(length) = length
            && let Some(binary_as) = head.get_mut(table_entry(index))
        {
            *binary_as |= IN_SLOT;
            let offset = Segment::Owned(offset.to_le_bytes().to_vec());
            if let Some(number) = head.get_mut(12..20)
                && let Some(body) = number.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
            {
                let shorter = body - length as u64 + offset.as_ref().len() as u64;
                number.copy_from_slice(&shorter.to_le_bytes());
            }
            self.segments[FIRST_BUFFER + index] = offset;
        }
    }

    /// Whether there is nothing to write; never so for a frame made here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header_bytes(kind: u8, flags: u8, id: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        Header { flags, length, ..Header::new(Kind::Result, id) }.write(&mut bytes);
        bytes[2] = kind;
        bytes
    }

    #[test]
    fn garbage_is_recognised_by_its_first_byte_and_quoted() {
        let error = read_header(b"Traceback (most\n").unwrap_err();
        assert_eq!(error.to_string(), r#"expected a frame, got "Traceback (most\n""#);
        assert!(read_header(b"T").is_err());
        assert_eq!(read_header(b"S"), Ok(None));
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        let error = read_header(&header_bytes(0x7f, 0, 1, 0)).unwrap_err();
        assert_eq!(error.to_string(), "frame of unknown kind 0x7f");
    }

    #[test]
    fn a_kind_that_only_the_vm_sends_is_refused() {
        assert_eq!(read_header(&header_bytes(Kind::Eval as u8, 0, 1, 0)), Err(FrameError::UnknownKind(2)));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let error = read_header(&header_bytes(0x83, 0x40, 1, 0)).unwrap_err();
        assert_eq!(error.to_string(), "frame of kind 0x83 with unknown flags 0x40");
        assert!(read_header(&header_bytes(Kind::Print as u8, SHARED, 1, 0)).is_err());
    }

    #[test]
    fn a_length_beyond_all_memory_is_refused() {
        let error = read_header(&header_bytes(0x83, 0, 1, 1 << 63)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "frame of kind 0x83 with 9223372036854775808 bytes, more than memory can hold"
        );
    }

    #[test]
    fn of_a_buffer_in_a_slot_only_the_offset_travels() {
        let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
        for length in [5, 300] {
            pickle.buffer(vec![7; length], crate::pickle::BinaryAs::Memoryview);
        }
        let mut frame = pickle.into_frame(Header::new(Kind::Eval, 1));
        assert!(frame.has_buffer_for_slot(300) && !frame.has_buffer_for_slot(301));
        assert!(frame.suits_slot(1, 300) && !frame.suits_slot(0, 300));
        frame.buffer_is_in_slot(1, 0x10000);
        // It is there once only, and nothing else is a buffer.
        frame.buffer_is_in_slot(1, 0);
        frame.buffer_is_in_slot(2, 0);
        let [head, pickle, small, large] = &frame.segments[..] else { panic!() };
        assert_eq!(head.as_ref()[HEADER_LEN..], *b"\x02\0\0\0\x03\x05\0\0\0\0\0\0\0\x83\x2c\x01\0\0\0\0\0\0");
        let length = u64::from_le_bytes(*head.as_ref()[12..].first_chunk().unwrap());
        assert_eq!(length as usize, frame.len() - HEADER_LEN);
        assert_eq!((small.as_ref(), large.as_ref()), (&[7; 5][..], &0x10000u64.to_le_bytes()[..]));
        assert!(!pickle.as_ref().is_empty());
    }

    #[test]
    fn what_python_copies_anyway_suits_no_slot() {
        for kind in [BinaryAs::Bytes, BinaryAs::Str, BinaryAs::Bytearray] {
            let mut pickle = crate::pickle::Pickle::<Vec<u8>>::new();
            pickle.buffer(vec![7; 300], kind);
            assert!(!pickle.into_frame(Header::new(Kind::Eval, 1)).has_buffer_for_slot(300));
        }
    }

    #[test]
    fn long_garbage_is_cut() {
        let error = read_header(&[b'x'; 1000]).unwrap_err();
        assert_eq!(error.to_string().len(), r#"expected a frame, got """#.len() + 64 + 3);
    }

    proptest! {
        #[test]
        fn a_header_survives_the_trip(id: u64, cause: u64, length in 0..=MAX_LENGTH) {
            let header = Header { flags: HANDLES, cause, length, ..Header::new(Kind::Call, id) };
            let mut bytes = [0; HEADER_LEN];
            header.write(&mut bytes);
            prop_assert_eq!(read_header(&bytes), Ok(Some(header)));
        }

        #[test]
        fn no_table_of_handles_makes_it_panic(body: Vec<u8>) {
            if let Some((ids, start)) = split_handles(&body) {
                prop_assert_eq!(start, 4 + 8 * ids.len());
                prop_assert!(start <= body.len());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read_header(&bytes);
        }
    }
}
