//! What has been encoded: bytes in a row, and large binaries that are left where they are.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyMemoryView};

/// From this size on a binary is a part of its own. As `LARGE` in `_scalars.py`.
pub const LARGE: usize = 64 * 1024;

/// The encoding so far.
pub struct Output<'py> {
    /// Bytes since the last large binary.
    pub bytes: Vec<u8>,
    parts: Vec<Bound<'py, PyAny>>,
}

impl<'py> Output<'py> {
    /// Nothing yet.
    pub fn new() -> Self {
        Output { bytes: Vec::with_capacity(256), parts: Vec::new() }
    }

    /// Whether everything is in `bytes`.
    pub fn is_plain(&self) -> bool {
        self.parts.is_empty()
    }

    /// A tag and a count of four bytes; false when the format has no room for the count.
    #[must_use]
    pub fn header(&mut self, tag: u8, count: usize) -> bool {
        let Ok(count) = u32::try_from(count) else { return false };
        let [a, b, c, d] = count.to_be_bytes();
        self.bytes.extend_from_slice(&[tag, a, b, c, d]);
        true
    }

    /// A large binary, which stays in the memory of its object.
    pub fn large(&mut self, py: Python<'py>, part: Bound<'py, PyAny>) {
        self.parts.push(PyBytes::new(py, &self.bytes).into_any());
        self.bytes.clear();
        self.parts.push(part);
    }

    /// A view of a large object of type `bytes`.
    pub fn large_bytes(&mut self, py: Python<'py>, object: &Bound<'py, PyAny>) -> PyResult<()> {
        let view = PyMemoryView::from(object)?;
        self.large(py, view.into_any());
        Ok(())
    }

    /// The parts, as a list.
    pub fn into_parts(mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        if !self.bytes.is_empty() {
            self.parts.push(PyBytes::new(py, &self.bytes).into_any());
        }
        PyList::new(py, self.parts)
    }
}
