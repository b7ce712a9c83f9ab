//! Memory for an incoming body: a `bytes` or `bytearray` that is filled in place, without being zeroed first.

use crate::huge_pages;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr;

/// `PyBUF_WRITE` of `memoryobject.h`.
const WRITE: c_int = 0x200;

/// A `bytes` object that is still being made, or a `bytearray`.
///
/// Nobody else has a reference to it until `finish` returns it. A view borrows its memory: it has to be released
/// before the next call of `view` or `finish`.
#[pyclass(module = "snex._etf._native")]
pub struct Room {
    /// Ours, with no other reference to it; null after `finish`.
    object: *mut ffi::PyObject,
    mutable: bool,
}

// SAFETY: only methods use the object, and these run with the GIL held.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

#[pymethods]
impl Room {
    /// Room for `size` bytes.
    #[new]
    fn new(py: Python<'_>, size: usize, mutable: bool) -> PyResult<Self> {
        let size = isize::try_from(size)?;
        // SAFETY: for null, both leave the memory uninitialized. They return a new reference, or null with an error.
        let object = unsafe {
            if mutable {
                ffi::PyByteArray_FromStringAndSize(ptr::null(), size)
            } else {
                ffi::PyBytes_FromStringAndSize(ptr::null(), size)
            }
        };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let mut room = Room { object, mutable };
        huge_pages::prefer(room.memory(py)?);
        Ok(room)
    }

    /// A writable view of the memory from byte `start` on.
    fn view<'py>(&mut self, py: Python<'py>, start: usize) -> PyResult<Bound<'py, PyAny>> {
        let memory = self.memory(py)?.get_mut(start..).unwrap_or_default();
        let (address, size) = (memory.as_mut_ptr().cast(), isize::try_from(memory.len())?);
        // SAFETY: the memory stays in its place until the next call, and the view is released before that. The result
        // is a new reference, or null with an error.
        unsafe {
            let view = ffi::PyMemoryView_FromMemory(address, size, WRITE);
            Bound::from_owned_ptr_or_err(py, view)
        }
    }

    /// Returns the filled object. No method may be called after that.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.memory(py)?;
        let object = std::mem::replace(&mut self.object, ptr::null_mut());
        // SAFETY: the reference was ours, and its ownership moves.
        Ok(unsafe { Bound::from_owned_ptr(py, object) })
    }
}

impl Room {
    /// The memory of the object. Not all of it has been written yet.
    fn memory(&mut self, _py: Python<'_>) -> PyResult<&mut [MaybeUninit<u8>]> {
        if self.object.is_null() {
            return Err(PyRuntimeError::new_err("this room has been handed out"));
        }
        // SAFETY: the object is alive and of the type in question. Only the borrower of `self` has a Rust reference
        // to its bytes. They may be uninitialized, as the element type says.
        unsafe {
            let (address, size) = if self.mutable {
                (ffi::PyByteArray_AsString(self.object), ffi::PyByteArray_Size(self.object))
            } else {
                (ffi::PyBytes_AsString(self.object), ffi::PyBytes_Size(self.object))
            };
            Ok(std::slice::from_raw_parts_mut(address.cast(), size.unsigned_abs()))
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.object.is_null() {
            // SAFETY: Python drops its objects with the GIL held, and the reference is ours.
            unsafe { ffi::Py_DECREF(self.object) }
        }
    }
}
