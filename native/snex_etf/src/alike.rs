//! Types whose objects all become handles. The package is asked about the first object of a type only.

use crate::access::{bytes_of, tuple_item};
use crate::encoder::{EncodeError, Result};
use crate::output::{Output, no_memory};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyType};
use rustc_hash::FxHashMap;

/// The types known in one encoding.
#[derive(Default)]
pub struct Alike<'py>(FxHashMap<*mut ffi::PyTypeObject, Around<'py>>);

/// The encoding of a handle, before and after its index.
struct Around<'py> {
    before: Bound<'py, PyAny>,
    behind: Bound<'py, PyAny>,
    /// Keeps the type alive, so that no other type gets its address.
    _class: Bound<'py, PyType>,
}

impl<'py> Alike<'py> {
    /// Writes a handle in the place of `value`, and adds the value to `objects`. Returns false if its type is not
    /// known.
    pub fn put(
        &self,
        output: &mut Output<'py>,
        value: &Bound<'py, PyAny>,
        objects: &Bound<'py, PyList>,
    ) -> Result<bool> {
        let Some(Around { before, behind, .. }) = self.0.get(&value.get_type_ptr()) else { return Ok(false) };
        output.put(bytes_of(before)?)?;
        output.int(i64::try_from(objects.len()).map_err(|_| EncodeError::Unusual)?)?;
        output.put(bytes_of(behind)?)?;
        objects.append(value)?;
        Ok(true)
    }

    /// Remembers the type of `value` if all objects of that type become handles. `raw` is what the package has
    /// converted the value to.
    pub fn learn(&mut self, value: &Bound<'py, PyAny>, raw: &Bound<'py, PyAny>) -> Result<()> {
        let around = raw.getattr(intern!(raw.py(), "around"))?;
        if !around.is_none() {
            self.0.try_reserve(1).map_err(|_| no_memory())?;
            let (before, behind) = (tuple_item(&around, 0)?, tuple_item(&around, 1)?);
            self.0.insert(value.get_type_ptr(), Around { before, behind, _class: value.get_type() });
        }
        Ok(())
    }
}
