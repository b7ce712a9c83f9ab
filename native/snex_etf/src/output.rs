//! The output of the encoder: bytes in a row, and large binaries, which are not copied.

use crate::encoder::{EncodeError, Result};
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView};

/// From this size on, a binary is a part of its own. The same as `LARGE` in `_etf/scalars.py`.
pub const LARGE: usize = 64 * 1024;

/// The initial capacity.
const FIRST: usize = 256;

/// What has been encoded so far.
pub struct Output<'py> {
    /// Bytes since the last large binary. Its capacity never exceeds `left`, so the limit has to be checked only when
    /// it grows.
    bytes: Vec<u8>,
    parts: Vec<Bound<'py, PyAny>>,
    /// How many bytes there may be in addition to `parts`.
    left: usize,
}

impl<'py> Output<'py> {
    /// An empty output for at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Output { bytes: Vec::with_capacity(FIRST.min(limit)), parts: Vec::new(), left: limit }
    }

    /// The same as `new`, but reuses `memory`.
    pub fn with_memory(limit: usize, mut memory: Vec<u8>) -> Self {
        memory.clear();
        if memory.capacity() > limit {
            memory = Vec::new();
        }
        Output { bytes: memory, parts: Vec::new(), left: limit }
    }

    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.has_room(bytes.len()) {
            self.make_room(bytes.len())?;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Adds the first `count` bytes of a buffer. Faster than `put`, because it copies the whole buffer, whose size is
    /// constant.
    pub fn put_start<const SIZE: usize>(&mut self, buffer: &[u8; SIZE], count: usize) -> Result<()> {
        if !self.has_room(SIZE) {
            // Near the limit, there may be no room for the whole buffer.
            return self.put(&buffer[..count]);
        }
        let length = self.bytes.len() + count.min(SIZE);
        self.bytes.extend_from_slice(buffer);
        self.bytes.truncate(length);
        Ok(())
    }

    /// The bytes since the last large binary, without the first `start`.
    pub fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..).unwrap_or_default()
    }

    /// How many bytes there are since the last large binary.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    #[cold]
    fn make_room(&mut self, more: usize) -> Result<()> {
        let length = self.bytes.len();
        let needed = length.saturating_add(more);
        if needed > self.left {
            return Err(EncodeError::TooLarge { surplus: needed - self.left });
        }
        let wanted = needed.max(length.saturating_mul(2)).min(self.left);
        self.bytes.try_reserve_exact(wanted - length).map_err(|_| no_memory())
    }

    /// Adds a tag and a count of four bytes. A larger count is left to the pure encoder, which raises an error.
    pub fn header(&mut self, tag: u8, count: usize) -> Result<()> {
        let [a, b, c, d] = u32::try_from(count).map_err(|_| EncodeError::Unusual)?.to_be_bytes();
        self.put(&[tag, a, b, c, d])
    }

    /// Adds a tag, the length of `bytes` in four bytes, and `bytes`.
    pub fn sized(&mut self, tag: u8, bytes: &[u8]) -> Result<()> {
        let room = self.bytes.capacity() - self.bytes.len();
        if bytes.len() >= room || room - bytes.len() < 5 {
            self.make_room(bytes.len().saturating_add(5))?;
        }
        self.header(tag, bytes.len())?;
        self.put(bytes)
    }

    /// Adds an integer of 32 bits, if there is room for the longest. Returns false if it did not.
    #[inline]
    pub fn quick_int(&mut self, number: i64) -> bool {
        let Ok(number) = i32::try_from(number) else { return false };
        let [a, b, c, d] = number.to_be_bytes();
        let has_room = self.has_room(5);
        if has_room && [a, b, c] == [0; 3] {
            self.bytes.extend_from_slice(&[97, d]);
        } else if has_room {
            self.bytes.extend_from_slice(&[98, a, b, c, d]);
        }
        has_room
    }

    /// Adds a finite number, if there is room for it. Returns false if it did not.
    #[inline]
    pub fn quick_float(&mut self, number: f64) -> bool {
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        let has_room = self.has_room(9);
        if has_room {
            self.bytes.extend_from_slice(&[70, a, b, c, d, e, f, g, h]);
        }
        has_room
    }

    fn has_room(&self, count: usize) -> bool {
        self.bytes.capacity() - self.bytes.len() >= count
    }

    /// Adds an integer of 64 bits.
    pub fn int(&mut self, number: i64) -> Result<()> {
        if let Ok(small) = u8::try_from(number) {
            self.put(&[97, small])
        } else if let Ok(small) = i32::try_from(number) {
            let [a, b, c, d] = small.to_be_bytes();
            self.put(&[98, a, b, c, d])
        } else {
            let magnitude = number.unsigned_abs();
            let size = 8 - magnitude.leading_zeros() as usize / 8;
            self.put(&[110, size as u8, u8::from(number < 0)])?;
            self.put(&magnitude.to_le_bytes()[..size])
        }
    }

    /// Returns an error if `more` bytes would exceed the limit.
    pub fn check(&self, more: usize) -> Result<()> {
        match self.bytes.len().saturating_add(more).checked_sub(self.left) {
            None | Some(0) => Ok(()),
            Some(surplus) => Err(EncodeError::TooLarge { surplus }),
        }
    }

    /// How many more bytes the limit allows.
    pub fn room(&self) -> usize {
        self.left.saturating_sub(self.bytes.len())
    }

    /// Adds a large binary of `size` bytes, without copying it.
    pub fn large(&mut self, py: Python<'py>, part: Bound<'py, PyAny>, size: usize) -> Result<()> {
        self.check(size)?;
        self.left -= self.bytes.len() + size;
        self.flush(py)?;
        if self.bytes.capacity() > self.left {
            // The limit is near. The capacity must not exceed it.
            self.bytes = Vec::new();
        }
        self.push(part)
    }

    /// Adds a view of a large `bytes` object.
    pub fn large_bytes(&mut self, py: Python<'py>, object: &Bound<'py, PyAny>, size: usize) -> Result<()> {
        let view = PyMemoryView::from(object)?;
        self.large(py, view.into_any(), size)
    }

    /// The parts, as a list.
    pub fn into_parts(mut self, py: Python<'py>) -> Result<Bound<'py, PyList>> {
        self.check(0)?;
        if !self.bytes.is_empty() {
            self.flush(py)?;
        }
        Ok(PyList::new(py, self.parts)?)
    }

    /// The parts, and the bytes after them.
    pub fn into_rest(self) -> (Vec<Bound<'py, PyAny>>, Vec<u8>) {
        (self.parts, self.bytes)
    }

    /// The bytes; `None` if there are large binaries.
    pub fn into_plain(self) -> Option<Vec<u8>> {
        self.parts.is_empty().then_some(self.bytes)
    }

    fn flush(&mut self, py: Python<'py>) -> Result<()> {
        let size = isize::try_from(self.bytes.len()).map_err(|_| no_memory())?;
        // SAFETY: `bytes` has `size` bytes to copy. The result is a new reference, or null with an error.
        // (`PyBytes::new` would panic if memory runs out, and `PyBytes::new_with` would write zeros first.)
        let part = unsafe {
            let object = ffi::PyBytes_FromStringAndSize(self.bytes.as_ptr().cast(), size);
            Bound::from_owned_ptr_or_err(py, object)?
        };
        self.bytes.clear();
        self.push(part)
    }

    fn push(&mut self, part: Bound<'py, PyAny>) -> Result<()> {
        self.parts.try_reserve(1).map_err(|_| no_memory())?;
        self.parts.push(part);
        Ok(())
    }
}

/// The error for memory that runs out.
pub fn no_memory() -> EncodeError {
    EncodeError::Error(PyMemoryError::new_err(()))
}
