//! Reading objects of Python's own types directly from memory. No code of an object's class runs, except when an
//! instance of a subclass of `set` or `frozenset` is copied into a plain one.

use crate::encoder::{EncodeError, Result};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFrozenSet, PySet, PyTuple};
use std::ptr;

/// The bytes of a `bytes` object, or of an instance of a subclass. Any other object is [`EncodeError::Unusual`].
pub fn bytes_of<'a>(value: &'a Bound<'_, PyAny>) -> Result<&'a [u8]> {
    value.cast::<PyBytes>().map(|bytes| bytes.as_bytes()).map_err(|_| EncodeError::Unusual)
}

/// An item of a list; `None` if the list has become shorter, or the object is not a list.
///
/// # Safety
/// The item is borrowed from the list. While it is used, nothing may run that could remove it.
pub unsafe fn list_item<'a, 'py>(
    list: &'a Bound<'py, PyAny>,
    index: usize,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: Python checks the type and the index. If one is wrong, it sets an error and returns null. The caller
    // keeps the item alive.
    unsafe {
        let item = ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t);
        let item = Borrowed::from_ptr_or_opt(list.py(), item);
        if item.is_none() {
            drop(PyErr::take(list.py()));
        }
        item
    }
}

/// An item of a tuple. If the object is not a tuple, or has no such item, it is [`EncodeError::Unusual`].
pub fn tuple_item<'py>(tuple: &Bound<'py, PyAny>, index: usize) -> Result<Bound<'py, PyAny>> {
    let tuple = tuple.cast::<PyTuple>().map_err(|_| EncodeError::Unusual)?;
    tuple.get_item(index).map_err(|_| EncodeError::Unusual)
}

/// The next key and value of a dict; `None` at the end, and if the object is not a dict.
///
/// # Safety
/// Both are borrowed from the dict. While they are used, nothing may run that could remove them.
pub unsafe fn dict_next<'a, 'py>(
    dict: &'a Bound<'py, PyAny>,
    position: &mut ffi::Py_ssize_t,
) -> Option<(Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>)> {
    let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: Python checks the type and the position. The caller keeps key and value alive.
    unsafe {
        if ffi::PyDict_Next(dict.as_ptr(), position, &mut key, &mut value) == 0 {
            return None;
        }
        Some((Borrowed::from_ptr(dict.py(), key), Borrowed::from_ptr(dict.py(), value)))
    }
}

/// The members of a set, even if a subclass overrides iteration. The order is that of the pure encoder, which copies
/// an instance of a subclass into a plain set.
pub fn snapshot<'py>(set: &Bound<'py, PyAny>) -> Result<Bound<'py, PyTuple>> {
    let py = set.py();
    // SAFETY: a living type.
    let is_set = unsafe { ffi::PyType_IsSubtype(set.get_type_ptr(), &raw mut ffi::PySet_Type) != 0 };
    let base = if is_set { py.get_type::<PySet>() } else { py.get_type::<PyFrozenSet>() };
    let mut members = base.getattr(intern!(py, "__iter__"))?.call1((set,))?;
    if !set.get_type().is(&base) {
        members = base.call1((members,))?;
    }
    // Python's own constructor raises if memory runs out. PyO3's would panic.
    let members = py.get_type::<PyTuple>().call1((members,))?;
    members.cast_into::<PyTuple>().map_err(|_| EncodeError::Unusual)
}
