//! Memory for a body that is on its way: a `bytes` or `bytearray` that is filled in place, and never touched before.

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
/// It belongs to nobody else until `finish` hands it out. The views of it are borrowed: whoever takes one releases it
/// before the next call of `view` or `finish`.
#[pyclass(module = "snex._etf._native")]
pub struct Room {
    /// Ours, with no other reference to it; null after `finish`.
    object: *mut ffi::PyObject,
    mutable: bool,
}

// SAFETY: the object is touched by methods only, which run with the interpreter's lock held.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

#[pymethods]
impl Room {
    /// Room for `size` bytes.
    #[new]
    fn new(py: Python<'_>, size: usize, mutable: bool) -> PyResult<Self> {
        let size = isize::try_from(size)?;
        // SAFETY: both take null for memory that is to be filled later, and return a new reference or null.
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

    /// A writable view from byte `start` on.
    fn view<'py>(&mut self, py: Python<'py>, start: usize) -> PyResult<Bound<'py, PyAny>> {
        let memory = self.memory(py)?.get_mut(start..).unwrap_or_default();
        let (address, size) = (memory.as_mut_ptr().cast(), isize::try_from(memory.len())?);
        // SAFETY: the memory stays where it is until the next call, by which the view has been released. A new reference
        // or null.
        unsafe {
            let view = ffi::PyMemoryView_FromMemory(address, size, WRITE);
            Bound::from_owned_ptr_or_err(py, view)
        }
    }

    /// The object. Nothing else is possible afterwards.
    fn finish<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.memory(py)?;
        let object = std::mem::replace(&mut self.object, ptr::null_mut());
        // SAFETY: our reference is handed on.
        Ok(unsafe { Bound::from_owned_ptr(py, object) })
    }
}

impl Room {
    /// What the object consists of. Python has not written to all of it yet.
    fn memory(&mut self, _py: Python<'_>) -> PyResult<&mut [MaybeUninit<u8>]> {
        if self.object.is_null() {
            return Err(PyRuntimeError::new_err("this room has been handed out"));
        }
        // SAFETY: the object is alive, of the type that is asked, and no Rust code but the borrower of `self` has a reference to
        // its bytes. They may not be initialized, which the type says.
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
            // SAFETY: Python drops its objects with the lock held, and the reference is ours.
            unsafe { ffi::Py_DECREF(self.object) }
        }
    }
}
