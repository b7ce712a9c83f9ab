//! Finds the kind of an object from its type alone. No code of the object's class runs.

use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Whether the package has to be asked about instances of subclasses. Set for good when the user registers an encoder
/// for a subclass of a type that is encoded here.
pub static ASK_SUBCLASSES: AtomicBool = AtomicBool::new(false);

/// What the extension needs from the package: a dict with these keys, passed to `set_up` once.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Helpers {
    /// The classes `Atom`, `DistinctAtom` and `Term`.
    atom: Py<PyAny>,
    distinct_atom: Py<PyAny>,
    term: Py<PyAny>,
    /// The class of objects that hold another object to be encoded.
    custom: Py<PyAny>,
    /// The class of objects that hold their own encoding, as `piece`.
    raw: Py<PyAny>,
    /// The class of lists of parts that also have the objects of the handles in them.
    with_handles: Py<PyAny>,
    /// Has `set_head` and `set_member`.
    settings: Py<PyAny>,
    /// Converts a value to an object of a known kind.
    convert: Py<PyAny>,
    /// Encodes a bytearray or memoryview.
    leaf: Py<PyAny>,
    /// The pure encoder.
    pub pure: Py<PyAny>,
    /// The pure encoder for an item of a stream, and a function that makes a part independent of the object it views.
    item: Py<PyAny>,
    frozen: Py<PyAny>,
    /// Makes a handle.
    keep: Py<PyAny>,
    /// Adds to an error where the value is.
    explain: Py<PyAny>,
    /// Makes the exception for a value that is too large.
    too_large: Py<PyAny>,
}

/// Kinds of objects, as the encoder tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    None,
    Bool,
    Int,
    Float,
    Str,
    Bytes,
    Buffer,
    Atom,
    Term,
    List,
    Tuple,
    Dict,
    Set,
    Custom,
    Raw,
    Other,
}

/// Whether keys of one exact type may become the same term although they differ in Python.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Never, and not together with keys of other types of this group. As `_CLEAR_MIX` in `_etf/encoder.py`.
    ClearTogether,
    /// Never, if all keys are of this type. As `_CLEAR_ALONE`.
    ClearAlone,
    /// Possibly.
    Unclear,
}

impl Helpers {
    /// The kind of `object`. An instance of a subclass has the kind of its base class.
    pub fn kind(&self, object: &Bound<'_, PyAny>) -> Kind {
        let class = object.get_type_ptr();
        // SAFETY: these are only addresses, of objects that Python never frees, and a type that `object` keeps alive.
        unsafe {
            if class == &raw mut ffi::PyUnicode_Type {
                Kind::Str
            } else if class == &raw mut ffi::PyLong_Type {
                Kind::Int
            } else if class == &raw mut ffi::PyFloat_Type {
                Kind::Float
            } else if class == &raw mut ffi::PyDict_Type {
                Kind::Dict
            } else if class == &raw mut ffi::PyList_Type {
                Kind::List
            } else if class == &raw mut ffi::PyTuple_Type {
                Kind::Tuple
            } else if class == &raw mut ffi::PyBool_Type {
                Kind::Bool
            } else if class == &raw mut ffi::PyBytes_Type {
                Kind::Bytes
            } else if object.is_none() {
                Kind::None
            } else {
                self.rarer_kind(class)
            }
        }
    }

    /// # Safety
    /// `class` is a living type.
    unsafe fn rarer_kind(&self, class: *mut ffi::PyTypeObject) -> Kind {
        let is = |base: *mut ffi::PyTypeObject| {
            // SAFETY: both are living types.
            unsafe { ffi::PyType_IsSubtype(class, base) != 0 }
        };
        // In the same order as `_converted`: the first match counts.
        if is(self.atom.as_ptr().cast()) {
            return Kind::Atom;
        }
        if is(self.term.as_ptr().cast()) {
            return Kind::Term;
        }
        if class.cast() == self.custom.as_ptr() {
            return Kind::Custom;
        }
        if class.cast() == self.raw.as_ptr() {
            return Kind::Raw;
        }
        if ASK_SUBCLASSES.load(Relaxed) {
            return self.unasked_kind(class);
        }
        // SAFETY: `class` is a living type.
        let flags = unsafe { ffi::PyType_GetFlags(class) };
        if flags & ffi::Py_TPFLAGS_UNICODE_SUBCLASS != 0 {
            Kind::Str
        } else if flags & ffi::Py_TPFLAGS_LONG_SUBCLASS != 0 {
            Kind::Int
        } else if is(&raw mut ffi::PyFloat_Type) {
            Kind::Float
        } else if flags & ffi::Py_TPFLAGS_BYTES_SUBCLASS != 0 {
            Kind::Bytes
        } else if is(&raw mut ffi::PyByteArray_Type) || class == &raw mut ffi::PyMemoryView_Type {
            Kind::Buffer
        } else if flags & ffi::Py_TPFLAGS_TUPLE_SUBCLASS != 0 {
            Kind::Tuple
        } else if flags & ffi::Py_TPFLAGS_LIST_SUBCLASS != 0 {
            Kind::List
        } else if flags & ffi::Py_TPFLAGS_DICT_SUBCLASS != 0 {
            Kind::Dict
        } else if is(&raw mut ffi::PySet_Type) || is(&raw mut ffi::PyFrozenSet_Type) {
            Kind::Set
        } else {
            Kind::Other
        }
    }

    /// The same as `rarer_kind`, but for exact types only: for any subclass, there may be an encoder of the user.
    fn unasked_kind(&self, class: *mut ffi::PyTypeObject) -> Kind {
        // These are only addresses.
        if class == &raw mut ffi::PyByteArray_Type || class == &raw mut ffi::PyMemoryView_Type {
            Kind::Buffer
        } else if class == &raw mut ffi::PySet_Type || class == &raw mut ffi::PyFrozenSet_Type {
            Kind::Set
        } else {
            Kind::Other
        }
    }

    /// Whether keys of this type may become the same term.
    pub fn keys(&self, class: *mut ffi::PyTypeObject) -> Keys {
        let is = |known: &Py<PyAny>| class.cast() == known.as_ptr();
        // SAFETY: only addresses are compared.
        unsafe {
            if class == &raw mut ffi::PyUnicode_Type || class == &raw mut ffi::PyLong_Type || is(&self.atom) {
                Keys::ClearTogether
            } else if class == &raw mut ffi::PyBytes_Type
                || class == &raw mut ffi::PyBool_Type
                || class == ffi::Py_TYPE(ffi::Py_None())
                || is(&self.distinct_atom)
                || is(&self.term)
            {
                Keys::ClearAlone
            } else {
                Keys::Unclear
            }
        }
    }

    /// Converts a value of an unknown kind: a view becomes a list, other values become what the custom encoder
    /// returns. A value that becomes a handle is added to `objects`; with `auto`, that is every value that no encoder
    /// handles.
    pub fn convert<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        objects: Bound<'py, PyList>,
        auto: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.convert.bind(value.py()).call1((value, objects, auto))
    }

    /// Combines parts with the objects of their handles.
    pub fn with_handles<'py>(
        &self,
        parts: Bound<'py, PyAny>,
        objects: Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.with_handles.bind(parts.py()).call1((parts, objects))
    }

    /// Makes a handle of an object.
    pub fn keep<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.keep.bind(object.py()).call1((object,))
    }

    /// Returns a part with the same content, which does not change with the object that `part` is a view of.
    pub fn frozen<'py>(&self, part: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.frozen.bind(part.py()).call1((part,))
    }

    /// Encodes an item of a stream with the pure encoder.
    pub fn encode_item<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        objects: &Bound<'py, PyList>,
        auto: bool,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.item.bind(item.py()).call1((item, objects, auto))?.extract()
    }

    /// Adds to an error where `value` is. `chain` has the containers around it, outermost first.
    pub fn explain<'py>(&self, error: &PyErr, chain: Vec<Bound<'py, PyAny>>, value: &Bound<'py, PyAny>) {
        let py = value.py();
        // Other exceptions, such as an interrupt, are not about the value. If this fails, the message only lacks the
        // place.
        if error.is_instance_of::<PyException>(py) {
            let _ = self.explain.bind(py).call1((error.value(py), chain, value));
        }
    }

    /// The exception for a value that is too large by at least `surplus` bytes.
    pub fn too_large(&self, py: Python<'_>, surplus: usize) -> PyErr {
        self.too_large.bind(py).call1((surplus,)).map_or_else(|error| error, PyErr::from_value)
    }

    /// Encodes a bytearray or memoryview. Returns a piece: `bytes`, or an object with `parts`.
    pub fn leaf<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.leaf.bind(value.py()).call1((value,))
    }

    /// The encoding of a `MapSet`: what comes before its map, and what follows each member.
    pub fn set_layout(&self, py: Python<'_>) -> PyResult<(Vec<u8>, Vec<u8>)> {
        let settings = self.settings.bind(py);
        Ok((
            settings.getattr(intern!(py, "set_head"))?.extract()?,
            settings.getattr(intern!(py, "set_member"))?.extract()?,
        ))
    }

    /// The sign of an integer, and its magnitude in little-endian order. For integers that do not fit into 64 bits.
    pub fn digits<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<(bool, Bound<'py, PyAny>)> {
        let py = value.py();
        // The methods of `int` itself: a subclass may override them.
        let int = py.get_type::<PyInt>();
        let magnitude = int.call_method1(intern!(py, "__abs__"), (value,))?;
        let bits: usize = int.call_method1(intern!(py, "bit_length"), (&magnitude,))?.extract()?;
        let size = bits.div_ceil(8);
        let digits = int.call_method1(intern!(py, "to_bytes"), (&magnitude, size, intern!(py, "little")))?;
        let negative = int.call_method1(intern!(py, "__lt__"), (value, 0))?.is_truthy()?;
        Ok((negative, digits))
    }
}
