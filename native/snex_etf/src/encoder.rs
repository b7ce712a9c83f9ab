//! The walk over a value, with a stack of its own: depth is limited by memory.
//!
//! Containers are read in place. Nothing but a custom encoder, and whatever Python's garbage collector finds to do, can
//! change them meanwhile; a container whose length is not what was announced is left to the pure encoder.

use crate::kinds::{Helpers, Keys, Kind};
use crate::output::{LARGE, Output};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFrozenSet, PyList, PySet, PyTuple};
use rustc_hash::FxHashSet;
use std::ptr;

/// As `_MAX_DEPTH` in `_encoder.py`.
const MAX_DEPTH: usize = 1_000_000;
/// A cycle makes the stack grow without end: it is looked for at this depth, and whenever that has doubled.
const FIRST_LOOK: usize = 8;
/// Keys that are encoded apart may have such keys in them, but not for ever.
const MAX_NESTED_KEYS: usize = 16;

/// Why a value is not encoded here.
pub enum Stop {
    /// The pure encoder knows what to do, or what to say.
    Unusual,
    /// Code of the user's has raised.
    Error(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Stop::Error(error)
    }
}

type Result<T> = std::result::Result<T, Stop>;

/// A container that is being encoded: the object, which is kept alive, and how far it has been read.
struct Frame<'py> {
    object: Bound<'py, PyAny>,
    /// What a cycle would lead back to: the value before it was converted, kept alive so that its address stays its own.
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
    /// `value`: that of the key that was encoded last.
    Dict {
        position: ffi::Py_ssize_t,
        left: usize,
        value: Option<Bound<'py, PyAny>>,
        apart: Option<Apart>,
    },
    /// The members are those of a snapshot, which is the object.
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

/// Keys that have to be compared as terms, for different ones of Python's may become the same.
type Apart = FxHashSet<Vec<u8>>;

pub struct Encoder<'py, 'h> {
    py: Python<'py>,
    helpers: &'h Helpers,
    nested: usize,
    output: Output<'py>,
    path: Vec<Frame<'py>>,
    look: usize,
}

impl<'py, 'h> Encoder<'py, 'h> {
    pub fn new(py: Python<'py>, helpers: &'h Helpers, nested: usize) -> Self {
        Encoder { py, helpers, nested, output: Output::new(), path: Vec::new(), look: FIRST_LOOK }
    }

    /// A complete term.
    pub fn encode(mut self, object: &Bound<'py, PyAny>) -> Result<Output<'py>> {
        self.output.bytes.push(131);
        self.run(object)?;
        Ok(self.output)
    }

    /// A key as a term of its own, without the leading 131.
    fn encode_key(&self, object: &Bound<'py, PyAny>) -> Result<Vec<u8>> {
        if self.nested == MAX_NESTED_KEYS {
            return Err(Stop::Unusual);
        }
        let mut encoder = Encoder::new(self.py, self.helpers, self.nested + 1);
        encoder.run(object)?;
        if encoder.output.is_plain() { Ok(encoder.output.bytes) } else { Err(Stop::Unusual) }
    }

    fn run(&mut self, object: &Bound<'py, PyAny>) -> Result<()> {
        self.value(object)?;
        while let Some(next) = self.step()? {
            self.value(&next)?;
        }
        Ok(())
    }

    /// The next object to be encoded; `None` when all is done.
    fn step(&mut self) -> Result<Option<Bound<'py, PyAny>>> {
        while let Some(mut frame) = self.path.pop() {
            let next = self.next_of(&mut frame)?;
            if next.is_some() {
                self.path.push(frame);
                return Ok(next);
            }
            if matches!(frame.rest, Rest::List { .. }) {
                self.output.bytes.push(b'j');
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
                Ok(Some(tuple_item(object, *next - 1)))
            }
            Rest::Dict { position, left, value, apart } => {
                if let Some(value) = value.take() {
                    return Ok(Some(value));
                }
                while let Some((key, found)) = dict_next(object, position) {
                    // More of them than were announced.
                    *left = left.checked_sub(1).ok_or(Stop::Unusual)?;
                    match apart {
                        Some(seen) => {
                            // It may be that code of somebody's runs.
                            let (key, found) = (key.to_owned(), found.to_owned());
                            self.apart(&key, seen)?;
                            return Ok(Some(found));
                        }
                        None if self.quick_leaf(&key)? => {}
                        None => {
                            *value = Some(found.to_owned());
                            return Ok(Some(key.to_owned()));
                        }
                    }
                    if !self.quick_leaf(&found)? {
                        return Ok(Some(found.to_owned()));
                    }
                }
                if *left == 0 { Ok(None) } else { Err(Stop::Unusual) }
            }
            Rest::Set { next, count, member, apart } => loop {
                if *next > 0 {
                    self.output.bytes.extend_from_slice(member);
                }
                if next == count {
                    return Ok(None);
                }
                *next += 1;
                let item = tuple_item(object, *next - 1);
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

    /// The leaves of a list up to the first item that is none, which is returned.
    fn list_items(
        &mut self,
        list: &Bound<'py, PyAny>,
        next: &mut usize,
        count: usize,
    ) -> Result<Option<Bound<'py, PyAny>>> {
        while *next < count {
            let Some(item) = list_item(list, *next) else { return Err(Stop::Unusual) };
            *next += 1;
            if !self.quick_leaf(&item)? {
                return Ok(Some(item.to_owned()));
            }
        }
        Ok(None)
    }

    /// Encodes a leaf of the sorts for which nothing but their memory is looked at; false for all else. So the reference may
    /// be one that is borrowed from a container, which nobody can change meanwhile.
    fn quick_leaf(&mut self, value: &Bound<'py, PyAny>) -> Result<bool> {
        let object = value.as_ptr();
        match self.helpers.kind(value) {
            Kind::Int => {
                let mut overflow = 0;
                // SAFETY: an int, or of a subclass: its value is read, nothing is called.
                let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow) };
                if overflow != 0 {
                    return Ok(false);
                }
                self.small_int(number);
            }
            Kind::Str => {
                // SAFETY: a str, or of a subclass.
                if unsafe { ffi::PyUnicode_GetLength(object) }.unsigned_abs() >= LARGE / 4 {
                    return Ok(false);
                }
                self.text(value, false)?;
            }
            Kind::Bytes if bytes_of(value).len() >= LARGE => return Ok(false),
            kind @ (Kind::Float | Kind::None | Kind::Bool | Kind::Bytes) => return self.leaf(value, kind),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A key that has to differ from the others as a term.
    fn apart(&mut self, key: &Bound<'py, PyAny>, seen: &mut Apart) -> Result<()> {
        let bytes = self.encode_key(key)?;
        self.output.bytes.extend_from_slice(&bytes);
        if seen.insert(bytes) { Ok(()) } else { Err(Stop::Unusual) }
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
        let known = self.helpers.convert(value)?;
        match self.helpers.kind(&known) {
            Kind::Other => Err(Stop::Unusual),
            kind => {
                if self.leaf(&known, kind)? {
                    return Ok(());
                }
                self.begin(known, value, kind)
            }
        }
    }

    /// Begins a container.
    fn begin(&mut self, object: Bound<'py, PyAny>, original: &Bound<'py, PyAny>, kind: Kind) -> Result<()> {
        let original = original.clone();
        let rest = match kind {
            Kind::List => {
                // SAFETY: a list, or of a subclass.
                let count = unsafe { ffi::PyList_Size(object.as_ptr()) }.unsigned_abs();
                if count == 0 {
                    self.output.bytes.push(b'j');
                    return Ok(());
                }
                self.header(108, count)?;
                Rest::List { next: 0, count }
            }
            Kind::Tuple => {
                // SAFETY: a tuple, or of a subclass.
                let count = unsafe { ffi::PyTuple_Size(object.as_ptr()) }.unsigned_abs();
                match u8::try_from(count) {
                    Ok(small) => self.output.bytes.extend_from_slice(&[104, small]),
                    Err(_) => self.header(105, count)?,
                }
                Rest::Tuple { next: 0, count }
            }
            Kind::Dict => {
                // SAFETY: a dict, or of a subclass.
                let count = unsafe { ffi::PyDict_Size(object.as_ptr()) }.unsigned_abs();
                self.header(116, count)?;
                let apart = self.keys_of_dict(&object);
                Rest::Dict { position: 0, left: count, value: None, apart }
            }
            Kind::Set => {
                let members = snapshot(&object)?;
                let (head, member) = self.helpers.set_layout(self.py)?;
                self.output.bytes.extend_from_slice(&head);
                let count = members.len();
                self.header(116, count)?;
                let apart = self.look_at_keys(members.iter().map(|member| member.get_type_ptr()));
                let rest = Rest::Set { next: 0, count, member, apart };
                return self.push(Frame { object: members.into_any(), original, rest });
            }
            Kind::Custom => Rest::One { done: false },
            _ => return Err(Stop::Unusual),
        };
        self.push(Frame { object, original, rest })
    }

    fn push(&mut self, frame: Frame<'py>) -> Result<()> {
        self.path.push(frame);
        if self.path.len() >= self.look {
            self.look *= 2;
            let mut seen = FxHashSet::default();
            if self.path.len() > MAX_DEPTH
                || !self.path.iter().all(|frame| seen.insert(frame.original.as_ptr()))
            {
                return Err(Stop::Unusual);
            }
        }
        Ok(())
    }

    fn keys_of_dict(&self, dict: &Bound<'py, PyAny>) -> Option<Apart> {
        let mut position = 0;
        let keys = std::iter::from_fn(|| dict_next(dict, &mut position).map(|(key, _)| key.get_type_ptr()));
        self.look_at_keys(keys)
    }

    /// A set to compare keys in, if they may become the same term. As `_needs_key_check` in `_encoder.py`.
    fn look_at_keys(&self, classes: impl Iterator<Item = *mut ffi::PyTypeObject>) -> Option<Apart> {
        let mut first = ptr::null_mut();
        for class in classes {
            let is_clear = class == first
                || match self.helpers.keys(class) {
                    Keys::ClearTogether => first.is_null() || self.helpers.keys(first) == Keys::ClearTogether,
                    Keys::ClearAlone => first.is_null(),
                    Keys::Unclear => false,
                };
            if !is_clear {
                return Some(Apart::default());
            }
            first = class;
        }
        None
    }

    fn header(&mut self, tag: u8, count: usize) -> Result<()> {
        if self.output.header(tag, count) { Ok(()) } else { Err(Stop::Unusual) }
    }

    /// Encodes a leaf; false for what is none.
    fn leaf(&mut self, value: &Bound<'py, PyAny>, kind: Kind) -> Result<bool> {
        let object = value.as_ptr();
        match kind {
            Kind::Int => self.int(value)?,
            Kind::Float => {
                // SAFETY: a float, or of a subclass: its value is read, nothing is called.
                let number = unsafe { ffi::PyFloat_AsDouble(object) };
                self.float(number);
            }
            Kind::Str => self.text(value, false)?,
            Kind::Atom => self.text(value, true)?,
            Kind::None => self.output.bytes.extend_from_slice(b"w\x03nil"),
            Kind::Bool => {
                // SAFETY: only addresses are compared.
                let truth = unsafe { object == ffi::Py_True() };
                self.output.bytes.extend_from_slice(if truth { b"w\x04true" } else { b"w\x05false" });
            }
            Kind::Bytes => {
                let bytes = bytes_of(value);
                self.header(109, bytes.len())?;
                if bytes.len() < LARGE {
                    self.output.bytes.extend_from_slice(bytes);
                } else {
                    self.output.large_bytes(self.py, value)?;
                }
            }
            Kind::Term => match bytes_of(value) {
                [131, term @ ..] if term.len() < LARGE => self.output.bytes.extend_from_slice(term),
                // The pure one has a view without the leading byte.
                _ => return Err(Stop::Unusual),
            },
            Kind::Buffer => self.buffer(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn int(&mut self, value: &Bound<'py, PyAny>) -> Result<()> {
        let mut overflow = 0;
        // SAFETY: an int, or of a subclass: its value is read, nothing is called.
        let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
        if overflow == 0 {
            self.small_int(number);
            return Ok(());
        }
        let (negative, digits) = self.helpers.digits(value)?;
        let digits = bytes_of(&digits);
        if let Ok(size) = u8::try_from(digits.len()) {
            self.output.bytes.extend_from_slice(&[110, size, u8::from(negative)]);
        } else {
            self.header(111, digits.len())?;
            self.output.bytes.push(u8::from(negative));
        }
        self.output.bytes.extend_from_slice(digits);
        Ok(())
    }

    fn small_int(&mut self, number: i64) {
        let bytes = &mut self.output.bytes;
        if let Ok(small) = u8::try_from(number) {
            bytes.extend_from_slice(&[97, small]);
        } else if let Ok(small) = i32::try_from(number) {
            let [a, b, c, d] = small.to_be_bytes();
            bytes.extend_from_slice(&[98, a, b, c, d]);
        } else {
            let magnitude = number.unsigned_abs();
            let size = 8 - magnitude.leading_zeros() as usize / 8;
            bytes.extend_from_slice(&[110, size as u8, u8::from(number < 0)]);
            bytes.extend_from_slice(&magnitude.to_le_bytes()[..size]);
        }
    }

    fn float(&mut self, number: f64) {
        let bytes = &mut self.output.bytes;
        if number.is_finite() {
            let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
            bytes.extend_from_slice(&[70, a, b, c, d, e, f, g, h]);
        } else if number.is_nan() {
            bytes.extend_from_slice(b"w\x03nan");
        } else if number > 0.0 {
            bytes.extend_from_slice(b"w\x03inf");
        } else {
            bytes.extend_from_slice(b"w\x04-inf");
        }
    }

    fn text(&mut self, value: &Bound<'py, PyAny>, is_atom: bool) -> Result<()> {
        let object = value.as_ptr();
        // SAFETY: a str, or of a subclass.
        let characters = unsafe { ffi::PyUnicode_GetLength(object) }.unsigned_abs();
        if characters < LARGE / 4 {
            let mut size = 0;
            // Python keeps the UTF-8 of such a text with it; for text in ASCII that is the text itself.
            // SAFETY: as above; the bytes live as long as the object.
            let text = unsafe { ffi::PyUnicode_AsUTF8AndSize(object, &mut size) };
            if text.is_null() {
                return self.lone_surrogate();
            }
            // SAFETY: Python says that there are so many bytes.
            let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size.unsigned_abs()) };
            if is_atom { self.atom(text) } else { self.binary(text) }
        } else {
            // SAFETY: as above; a new reference, or null with an error.
            let bytes = unsafe { Bound::from_owned_ptr_or_opt(self.py, ffi::PyUnicode_AsUTF8String(object)) };
            let Some(bytes) = bytes else { return self.lone_surrogate() };
            let text = bytes_of(&bytes);
            self.header(109, text.len())?;
            if text.len() < LARGE {
                self.output.bytes.extend_from_slice(text);
            } else {
                self.output.large(self.py, bytes);
            }
            Ok(())
        }
    }

    /// What the pure encoder has better words for.
    fn lone_surrogate(&self) -> Result<()> {
        // Not to be left behind.
        drop(PyErr::take(self.py));
        Err(Stop::Unusual)
    }

    fn atom(&mut self, name: &[u8]) -> Result<()> {
        if let Ok(size) = u8::try_from(name.len()) {
            self.output.bytes.extend_from_slice(&[119, size]);
        } else {
            let size = u16::try_from(name.len()).map_err(|_| Stop::Unusual)?;
            let [high, low] = size.to_be_bytes();
            self.output.bytes.extend_from_slice(&[118, high, low]);
        }
        self.output.bytes.extend_from_slice(name);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.header(109, bytes.len())?;
        self.output.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// What has a buffer, in one of many shapes: the package looks at it.
    fn buffer(&mut self, value: &Bound<'py, PyAny>) -> Result<()> {
        let piece = self.helpers.leaf(value)?;
        if let Ok(bytes) = piece.cast::<PyBytes>() {
            self.output.bytes.extend_from_slice(bytes.as_bytes());
            return Ok(());
        }
        let parts = piece.cast::<PyList>().map_err(|_| Stop::Unusual)?;
        for part in parts.iter() {
            match part.cast::<PyBytes>() {
                Ok(bytes) if bytes.as_bytes().len() < LARGE => {
                    self.output.bytes.extend_from_slice(bytes.as_bytes());
                }
                _ => self.output.large(self.py, part),
            }
        }
        Ok(())
    }
}

/// The bytes of an object of type `bytes`, or of a subclass.
fn bytes_of<'a>(value: &'a Bound<'_, PyAny>) -> &'a [u8] {
    // SAFETY: it is what the caller says; the memory lives as long as the object, and does not change.
    unsafe {
        let start = ffi::PyBytes_AsString(value.as_ptr()).cast::<u8>();
        std::slice::from_raw_parts(start, ffi::PyBytes_Size(value.as_ptr()).unsigned_abs())
    }
}

/// An item of a list; `None` where the list has become shorter.
fn list_item<'a, 'py>(list: &'a Bound<'py, PyAny>, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
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
fn tuple_item<'py>(tuple: &Bound<'py, PyAny>, index: usize) -> Bound<'py, PyAny> {
    // SAFETY: a tuple, or of a subclass, with more items than `index`.
    unsafe {
        Bound::from_borrowed_ptr(tuple.py(), ffi::PyTuple_GetItem(tuple.as_ptr(), index as ffi::Py_ssize_t))
    }
}

/// The next key and value of a dict.
fn dict_next<'a, 'py>(
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
fn snapshot<'py>(set: &Bound<'py, PyAny>) -> Result<Bound<'py, PyTuple>> {
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
