//! Reading Python's own objects, from their memory: no code of an object's class runs, but for making a plain set of a
//! subclass's.

use crate::encoder::{EncodeError, Result};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFrozenSet, PySet, PyTuple};
use std::ptr;

/// The bytes of an object of type `bytes`, or of a subclass. Anything else is unusual.
pub fn bytes_of<'a>(value: &'a Bound<'_, PyAny>) -> Result<&'a [u8]> {
    value.cast::<PyBytes>().map(|bytes| bytes.as_bytes()).map_err(|_| EncodeError::Unusual)
}

/// An item of a list; `None` where the list has become shorter, and for an object that is no list.
///
/// # Safety
/// While the item is used, nothing may run that could take it out of the list: it is borrowed from there.
pub unsafe fn list_item<'a, 'py>(
    list: &'a Bound<'py, PyAny>,
    index: usize,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: Python checks the type and the index, and returns null, with an error, if one is wrong. The caller keeps the item
    // alive.
    unsafe {
        let item = ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t);
        let item = Borrowed::from_ptr_or_opt(list.py(), item);
        if item.is_none() {
            drop(PyErr::take(list.py()));
        }
        item
    }
}

/// An item of a tuple. An object that is no tuple, or has no such item, is unusual.
pub fn tuple_item<'py>(tuple: &Bound<'py, PyAny>, index: usize) -> Result<Bound<'py, PyAny>> {
    let tuple = tuple.cast::<PyTuple>().map_err(|_| EncodeError::Unusual)?;
    tuple.get_item(index).map_err(|_| EncodeError::Unusual)
}

/// The next key and value of a dict; `None` for an object that is no dict.
///
/// # Safety
/// While the two are used, nothing may run that could take them out of the dict: they are borrowed from there.
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

/// The members of a set, whatever a subclass has made of iteration, in the order in which the pure encoder has them: that of
/// a plain set made of a subclass's.
pub fn snapshot<'py>(set: &Bound<'py, PyAny>) -> Result<Bound<'py, PyTuple>> {
    let py = set.py();
    // SAFETY: a living type.
    let is_set = unsafe { ffi::PyType_IsSubtype(set.get_type_ptr(), &raw mut ffi::PySet_Type) != 0 };
    let base = if is_set { py.get_type::<PySet>() } else { py.get_type::<PyFrozenSet>() };
    let mut members = base.getattr(intern!(py, "__iter__"))?.call1((set,))?;
    if !set.get_type().is(&base) {
        members = base.call1((members,))?;
    }
    // Python's own constructor raises where there is no memory.
    let members = py.get_type::<PyTuple>().call1((members,))?;
    members.cast_into::<PyTuple>().map_err(|_| EncodeError::Unusual)
}
