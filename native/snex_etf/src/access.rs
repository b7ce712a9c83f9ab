//! Reading Python's own objects, from their memory: no code of an object's class runs, but for making a plain set of a
//! subclass's.

use crate::encoder::Result;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFrozenSet, PySet, PyTuple};
use std::ptr;

/// The bytes of an object of type `bytes`, or of a subclass.
pub fn bytes_of<'a>(value: &'a Bound<'_, PyAny>) -> &'a [u8] {
    // SAFETY: it is what the caller says; the memory lives as long as the object, and does not change.
    unsafe {
        let start = ffi::PyBytes_AsString(value.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts(start, ffi::PyBytes_Size(value.as_ptr()).unsigned_abs())
    }
}

/// An item of a list; `None` where the list has become shorter.
pub fn list_item<'a, 'py>(list: &'a Bound<'py, PyAny>, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: a list, or of a subclass; the reference is borrowed, and null, with an error, beyond the end.
    unsafe {
        let item = ffi::PyList_GetItem(list.as_ptr(), index as ffi::Py_ssize_t);
        let item = Borrowed::from_ptr_or_opt(list.py(), item);
        if item.is_none() {
            drop(PyErr::take(list.py()));
        }
        item
    }
}

/// An item of a tuple, which does not change.
pub fn tuple_item<'py>(tuple: &Bound<'py, PyAny>, index: usize) -> Bound<'py, PyAny> {
    // SAFETY: a tuple, or of a subclass, with more items than `index`.
    unsafe {
        Bound::from_borrowed_ptr(tuple.py(), ffi::PyTuple_GetItem(tuple.as_ptr(), index as ffi::Py_ssize_t))
    }
}

/// The next key and value of a dict.
pub fn dict_next<'a, 'py>(
    dict: &'a Bound<'py, PyAny>,
    position: &mut ffi::Py_ssize_t,
) -> Option<(Borrowed<'a, 'py, PyAny>, Borrowed<'a, 'py, PyAny>)> {
    let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: a dict, or of a subclass; both references are borrowed from it.
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
    let members: Vec<Bound<'py, PyAny>> = members.try_iter()?.collect::<PyResult<_>>()?;
    Ok(PyTuple::new(py, members)?)
}
