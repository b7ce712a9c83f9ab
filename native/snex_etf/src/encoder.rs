//! Walks over a value. The walk has a stack of its own, so only memory limits the depth of values.
//!
//! Containers are read in place. Meanwhile, only a custom encoder or a finalizer run by the garbage collector can
//! change them. If the length of a container turns out not to be the one written before its items, the value is left
//! to the pure encoder.

use crate::access::{dict_next, list_item, snapshot, tuple_item};
use crate::alike::Alike;
use crate::kinds::{Helpers, Keys, Kind};
use crate::known_keys::KnownKeys;
use crate::output::{Output, no_memory};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use rustc_hash::FxHashSet;
use std::ptr;

/// The same as `_MAX_DEPTH` in `_etf/encoder.py`.
const MAX_DEPTH: usize = 1_000_000;
/// A cycle makes the stack grow without end. The stack is searched for cycles at this depth, and whenever the depth
/// has doubled.
const FIRST_LOOK: usize = 8;
/// How deep keys that are encoded on their own may be nested in one another.
const MAX_NESTED_KEYS: usize = 16;

/// The size of a handle in the frame's table of handles. The same as `BYTES_OF_HANDLE` in `_etf/handles.py`.
const BYTES_OF_HANDLE: usize = 8;

/// Why a value was not encoded here.
pub enum EncodeError {
    /// The value is left to the pure encoder, which encodes it or raises the right error.
    Unusual,
    /// The encoding would exceed the limit by at least `surplus` bytes.
    TooLarge { surplus: usize },
    /// Python has raised an exception, mostly in the user's code.
    Error(PyErr),
}

impl From<PyErr> for EncodeError {
    fn from(error: PyErr) -> Self {
        EncodeError::Error(error)
    }
}

/// The result of encoding something.
pub type Result<T> = std::result::Result<T, EncodeError>;

/// A container that is being encoded.
struct Frame<'py> {
    object: Bound<'py, PyAny>,
    /// The value before it was converted, by which cycles are found. Kept alive, so that no other object gets its
    /// address.
    original: Bound<'py, PyAny>,
    rest: Rest<'py>,
}

enum Rest<'py> {
    List {
        next: usize,
        count: usize,
    },
    Tuple {
        next: usize,
        count: usize,
    },
    /// `class` is the type of the last key, or null before the first. `value` is the value that belongs to the key
    /// encoded last, until it is encoded itself.
    Dict {
        position: ffi::Py_ssize_t,
        next: usize,
        count: usize,
        class: *mut ffi::PyTypeObject,
        value: Option<Bound<'py, PyAny>>,
        apart: Option<Apart>,
    },
    /// The members are read from a snapshot, a tuple, which is the frame's `object`.
    Set {
        next: usize,
        count: usize,
        member: Vec<u8>,
        apart: Option<Apart>,
    },
    One {
        done: bool,
    },
}

/// The encoded keys of a container. Keys that differ in Python may become the same term, so they are compared in this
/// form.
type Apart = FxHashSet<Vec<u8>>;

pub struct Encoder<'py, 'h> {
    pub py: Python<'py>,
    pub helpers: &'h Helpers,
    /// Whether an object without a counterpart in Elixir becomes a handle.
    auto: bool,
    /// The objects that handles stand for, once there are any.
    objects: Option<Bound<'py, PyList>>,
    alike: Alike<'py>,
    known_keys: KnownKeys<'py>,
    nested: usize,
    pub output: Output<'py>,
    path: Vec<Frame<'py>>,
    look: usize,
}

impl<'py, 'h> Encoder<'py, 'h> {
    /// Encodes to at most `limit` bytes.
    pub fn new(py: Python<'py>, helpers: &'h Helpers, auto: bool, limit: usize) -> Self {
        Self::nested(py, helpers, auto, 0, limit)
    }

    /// The same as `new`, but reuses `memory`.
    pub fn with_memory(
        py: Python<'py>,
        helpers: &'h Helpers,
        auto: bool,
        limit: usize,
        memory: Vec<u8>,
    ) -> Self {
        let mut encoder = Self::nested(py, helpers, auto, 0, 0);
        encoder.output = Output::with_memory(limit, memory);
        encoder
    }

    fn nested(py: Python<'py>, helpers: &'h Helpers, auto: bool, nested: usize, limit: usize) -> Self {
        let (alike, known_keys) = (Alike::default(), KnownKeys::default());
        let (output, path, look) = (Output::new(limit), Vec::new(), FIRST_LOOK);
        Encoder { py, helpers, auto, objects: None, alike, known_keys, nested, output, path, look }
    }

    /// Encodes a complete term. Returns its parts as a list, which also has the objects if there are handles.
    pub fn encode(mut self, object: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>> {
        self.output.put(&[131])?;
        self.run(object)?;
        if let Some(objects) = &self.objects {
            self.output.check(objects.len().saturating_mul(BYTES_OF_HANDLE))?;
        }
        let parts = self.output.into_parts(self.py)?.into_any();
        match self.objects {
            Some(objects) if !objects.is_empty() => Ok(self.helpers.with_handles(parts, objects)?),
            _ => Ok(parts),
        }
    }

    /// Encodes an item for a list that is put together later, without the leading 131. The indexes of its handles
    /// continue those of `objects`.
    pub fn encode_item(
        mut self,
        object: &Bound<'py, PyAny>,
        objects: Option<Bound<'py, PyList>>,
    ) -> Result<(Output<'py>, Option<Bound<'py, PyList>>)> {
        let before = objects.as_ref().map_or(0, |objects| objects.len());
        self.objects = objects;
        self.run(object)?;
        let handles = self.objects.as_ref().map_or(0, |objects| objects.len()) - before;
        self.output.check(handles.saturating_mul(BYTES_OF_HANDLE))?;
        Ok((self.output, self.objects))
    }

    /// Encodes a key on its own, without the leading 131.
    fn encode_key(&self, object: &Bound<'py, PyAny>) -> Result<Vec<u8>> {
        if self.nested == MAX_NESTED_KEYS {
            return Err(EncodeError::Unusual);
        }
        let room = self.output.room();
        let mut encoder = Encoder::nested(self.py, self.helpers, self.auto, self.nested + 1, room);
        encoder.run(object)?;
        encoder.output.into_plain().ok_or(EncodeError::Unusual)
    }

    fn run(&mut self, object: &Bound<'py, PyAny>) -> Result<()> {
        self.value(object)?;
        while let Some(next) = self.step()? {
            self.value(&next)?;
        }
        Ok(())
    }

    /// The next object to encode; `None` if there is none.
    fn step(&mut self) -> Result<Option<Bound<'py, PyAny>>> {
        while let Some(mut frame) = self.path.pop() {
            let next = self.next_of(&mut frame)?;
            if next.is_some() {
                self.path.push(frame);
                return Ok(next);
            }
            if matches!(frame.rest, Rest::List { .. }) {
                self.output.put(b"j")?;
            }
            if self.look > FIRST_LOOK && self.path.len() * 4 < self.look {
                self.look /= 2;
            }
        }
        Ok(None)
    }

    fn next_of(&mut self, frame: &mut Frame<'py>) -> Result<Option<Bound<'py, PyAny>>> {
        let object = &frame.object;
        match &mut frame.rest {
            Rest::List { next, count } => self.list_items(object, next, *count),
            Rest::Tuple { next, count } => {
                if next == count {
                    return Ok(None);
                }
                *next += 1;
                tuple_item(object, *next - 1).map(Some)
            }
            Rest::Dict { position, next, count, class, value, apart } => {
                if let Some(value) = value.take() {
                    return Ok(Some(value));
                }
                // SAFETY: key and value are used by `quick_leaf` and `KnownKeys`, which run no Python code. Before
                // anything else happens, new references to them are taken.
                while let Some((key, found)) = unsafe { dict_next(object, position) } {
                    if next == count {
                        // There are more items than the length that was written.
                        return Err(EncodeError::Unusual);
                    }
                    let last = std::mem::replace(class, key.get_type_ptr());
                    if apart.is_none() && !self.are_clear(last, *class) {
                        *apart = Some(self.keys_so_far(object, *next)?);
                    }
                    *next += 1;
                    if let Some(seen) = apart {
                        // Encoding the key may run Python code.
                        let (key, found) = (key.to_owned(), found.to_owned());
                        self.apart(&key, seen)?;
                        return Ok(Some(found));
                    }
                    if !self.quick_key(&key)? {
                        *value = Some(found.to_owned());
                        return Ok(Some(key.to_owned()));
                    }
                    if !self.quick_number(&found) && !self.quick_leaf(&found)? {
                        return Ok(Some(found.to_owned()));
                    }
                }
                if next == count { Ok(None) } else { Err(EncodeError::Unusual) }
            }
            Rest::Set { next, count, member, apart } => loop {
                if *next > 0 {
                    self.output.put(member)?;
                }
                if next == count {
                    return Ok(None);
                }
                *next += 1;
                let item = tuple_item(object, *next - 1)?;
                match apart {
                    None => return Ok(Some(item)),
                    Some(seen) => self.apart(&item, seen)?,
                }
            },
            Rest::One { done } => {
                if std::mem::replace(done, true) {
                    return Ok(None);
                }
                Ok(Some(object.getattr(intern!(self.py, "result"))?))
            }
        }
    }

    /// Encodes the items of a list up to the first that is not a simple leaf. Returns that item, or `None` at the
    /// end.
    fn list_items(
        &mut self,
        list: &Bound<'py, PyAny>,
        next: &mut usize,
        count: usize,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        while *next < count {
            // SAFETY: the item is used by `quick_leaf`, which runs no Python code. Before anything else happens, a
            // new reference to it is taken.
            let Some(item) = (unsafe { list_item(list, *next) }) else { return Err(EncodeError::Unusual) };
            *next += 1;
            if !self.quick_number(&item) && !self.quick_leaf(&item)? {
                return Ok(Some(item.to_owned()));
            }
        }
        Ok(None)
    }

    /// The same as `quick_leaf`, for the key of a dict.
    fn quick_key(&mut self, key: &Bound<'py, PyAny>) -> Result<bool> {
        if key.get_type_ptr() != &raw mut ffi::PyUnicode_Type {
            return self.quick_leaf(key);
        }
        if self.known_keys.put(key, &mut self.output)? {
            return Ok(true);
        }
        let start = self.output.length();
        let done = self.quick_leaf(key)?;
        if done {
            self.known_keys.learn(key, self.output.since(start));
        }
        Ok(done)
    }

    /// Encodes a key on its own, and checks that its term differs from those seen.
    fn apart(&mut self, key: &Bound<'py, PyAny>, seen: &mut Apart) -> Result<()> {
        let bytes = self.encode_key(key)?;
        self.output.put(&bytes)?;
        add(seen, bytes)
    }

    /// The terms of the first `count` keys of a dict. These have been encoded already; their classes have no code of
    /// the user.
    fn keys_so_far(&self, dict: &Bound<'py, PyAny>, count: usize) -> Result<Apart> {
        let (mut seen, mut position) = (Apart::default(), 0);
        for _ in 0..count {
            // SAFETY: a new reference to the key is taken before anything else happens.
            let pair = unsafe { dict_next(dict, &mut position) };
            let key = pair.map(|(key, _)| key.to_owned()).ok_or(EncodeError::Unusual)?;
            // The limit may not allow to encode them a second time. That does not mean that the value is too large.
            add(&mut seen, self.encode_key(&key).map_err(|_| EncodeError::Unusual)?)?;
        }
        Ok(seen)
    }

    /// Encodes a leaf, or begins a container.
    fn value(&mut self, value: &Bound<'py, PyAny>) -> Result<()> {
        let kind = self.helpers.kind(value);
        if self.leaf(value, kind)? {
            return Ok(());
        }
        if kind != Kind::Other {
            return self.begin(value.clone(), value, kind);
        }
        if self.nested > 0 {
            // Within a key, the object may become a handle, or an error that names the container around the key.
            return Err(EncodeError::Unusual);
        }
        let objects = self.objects.get_or_insert_with(|| PyList::empty(self.py)).clone();
        if self.auto && self.alike.put(&mut self.output, value, &objects)? {
            return Ok(());
        }
        let known =
            self.helpers.convert(value, objects, self.auto).map_err(|error| self.explained(error, value))?;
        if self.auto && self.helpers.kind(&known) == Kind::Raw {
            self.alike.learn(value, &known)?;
        }
        match self.helpers.kind(&known) {
            Kind::Other => Err(EncodeError::Unusual),
            kind => {
                if self.leaf(&known, kind)? {
                    return Ok(());
                }
                self.begin(known, value, kind)
            }
        }
    }

    /// Adds to an error where `value` is, which the user's code that raised the error does not know.
    fn explained(&self, error: PyErr, value: &Bound<'py, PyAny>) -> EncodeError {
        let chain = self.path.iter().map(|frame| frame.original.clone()).collect();
        self.helpers.explain(&error, chain, value);
        EncodeError::Error(error)
    }

    /// Begins a container.
    fn begin(&mut self, object: Bound<'py, PyAny>, original: &Bound<'py, PyAny>, kind: Kind) -> Result<()> {
        let original = original.clone();
        let rest = match kind {
            Kind::List => {
                // SAFETY: the object is a list, or an instance of a subclass.
                let count = unsafe { ffi::PyList_Size(object.as_ptr()) }.unsigned_abs();
                if count == 0 {
                    self.output.put(b"j")?;
                    return Ok(());
                }
                self.output.header(108, count)?;
                Rest::List { next: 0, count }
            }
            Kind::Tuple => {
                // SAFETY: the object is a tuple, or an instance of a subclass.
                let count = unsafe { ffi::PyTuple_Size(object.as_ptr()) }.unsigned_abs();
                match u8::try_from(count) {
                    Ok(small) => self.output.put(&[104, small])?,
                    Err(_) => self.output.header(105, count)?,
                }
                Rest::Tuple { next: 0, count }
            }
            Kind::Dict => {
                // SAFETY: the object is a dict, or an instance of a subclass.
                let count = unsafe { ffi::PyDict_Size(object.as_ptr()) }.unsigned_abs();
                self.output.header(116, count)?;
                self.known_keys.begin_dict()?;
                Rest::Dict { position: 0, next: 0, count, class: ptr::null_mut(), value: None, apart: None }
            }
            Kind::Set => {
                let members = snapshot(&object)?;
                let (head, member) = self.helpers.set_layout(self.py)?;
                self.output.put(&head)?;
                let count = members.len();
                self.output.header(116, count)?;
                let apart = self.look_at_keys(members.iter().map(|member| member.get_type_ptr()));
                let rest = Rest::Set { next: 0, count, member, apart };
                return self.push(Frame { object: members.into_any(), original, rest });
            }
            Kind::Custom => Rest::One { done: false },
            _ => return Err(EncodeError::Unusual),
        };
        self.push(Frame { object, original, rest })
    }

    fn push(&mut self, frame: Frame<'py>) -> Result<()> {
        self.path.try_reserve(1).map_err(|_| no_memory())?;
        self.path.push(frame);
        if self.path.len() >= self.look {
            self.look *= 2;
            let mut seen = FxHashSet::default();
            seen.try_reserve(self.path.len()).map_err(|_| no_memory())?;
            if self.path.len() > MAX_DEPTH
                || !self.path.iter().all(|frame| seen.insert(frame.original.as_ptr()))
            {
                return Err(EncodeError::Unusual);
            }
        }
        Ok(())
    }

    /// A set to compare keys in, if keys of these classes may become the same term. The counterpart of
    /// `_needs_key_check` in `_etf/encoder.py`.
    fn look_at_keys(&self, classes: impl Iterator<Item = *mut ffi::PyTypeObject>) -> Option<Apart> {
        let mut last = ptr::null_mut();
        for class in classes {
            if !self.are_clear(last, class) {
                return Some(Apart::default());
            }
            last = class;
        }
        None
    }

    /// Whether different keys of `class` become different terms, and differ from all keys up to one of the class
    /// `last`, which is null before the first key.
    fn are_clear(&self, last: *mut ffi::PyTypeObject, class: *mut ffi::PyTypeObject) -> bool {
        class == last
            || match self.helpers.keys(class) {
                Keys::ClearTogether => last.is_null() || self.helpers.keys(last) == Keys::ClearTogether,
                Keys::ClearAlone => last.is_null(),
                Keys::Unclear => false,
            }
    }
}

fn add(seen: &mut Apart, key: Vec<u8>) -> Result<()> {
    seen.try_reserve(1).map_err(|_| no_memory())?;
    if seen.insert(key) { Ok(()) } else { Err(EncodeError::Unusual) }
}
