//! Leaves: numbers, text, binaries, atoms.

use crate::access::bytes_of;
use crate::encoder::{EncodeError, Encoder, Result};
use crate::kinds::Kind;
use crate::output::LARGE;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

impl<'py> Encoder<'py, '_> {
    /// The fast path for long lists of numbers: encodes a 32-bit int or a finite float if there is room. Returns
    /// false if it did not.
    #[inline]
    pub fn quick_number(&mut self, value: &Bound<'py, PyAny>) -> bool {
        let (object, class) = (value.as_ptr(), value.get_type_ptr());
        // SAFETY: only addresses of types are compared. The value of an int or float is read; no Python code is
        // called.
        unsafe {
            if class == &raw mut ffi::PyLong_Type {
                let mut overflow = 0;
                let number = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
                overflow == 0 && self.output.quick_int(number)
            } else if class == &raw mut ffi::PyFloat_Type {
                let number = ffi::PyFloat_AsDouble(object);
                number.is_finite() && self.output.quick_float(number)
            } else {
                false
            }
        }
    }

    /// Encodes a leaf if that takes no more than reading its memory; returns false for all other objects. No Python
    /// code runs, so `value` may be borrowed from a container.
    pub fn quick_leaf(&mut self, value: &Bound<'py, PyAny>) -> Result<bool> {
        let object = value.as_ptr();
        match self.helpers.kind(value) {
            Kind::Int => {
                let mut overflow = 0;
                // SAFETY: the object is an int, or an instance of a subclass. Its value is read; no Python code is
                // called.
                let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow) };
                if overflow != 0 {
                    return Ok(false);
                }
                self.output.int(number)?;
            }
            Kind::Str => {
                if characters(value) >= LARGE / 4 {
                    return Ok(false);
                }
                self.short_text(value, false)?;
            }
            Kind::Bytes if bytes_of(value)?.len() >= LARGE => return Ok(false),
            kind @ (Kind::Float | Kind::None | Kind::Bool | Kind::Bytes) => return self.leaf(value, kind),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Encodes a leaf; returns false if `value` is not one.
    pub fn leaf(&mut self, value: &Bound<'py, PyAny>, kind: Kind) -> Result<bool> {
        let object = value.as_ptr();
        match kind {
            Kind::Int => self.int(value)?,
            Kind::Float => {
                // SAFETY: the object is a float, or an instance of a subclass. Its value is read; no Python code is
                // called.
                let number = unsafe { ffi::PyFloat_AsDouble(object) };
                self.float(number)?;
            }
            Kind::Str => self.text(value, false)?,
            Kind::Atom => self.text(value, true)?,
            Kind::None => self.output.put(b"w\x03nil")?,
            Kind::Bool => {
                // SAFETY: only addresses are compared.
                let truth = unsafe { object == ffi::Py_True() };
                self.output.put(if truth { b"w\x04true" } else { b"w\x05false" })?;
            }
            Kind::Bytes => {
                let bytes = bytes_of(value)?;
                self.output.header(109, bytes.len())?;
                if bytes.len() < LARGE {
                    self.output.put(bytes)?;
                } else {
                    self.output.large_bytes(self.py, value, bytes.len())?;
                }
            }
            Kind::Term => match bytes_of(value)? {
                [131, term @ ..] if term.len() < LARGE => self.output.put(term)?,
                // The pure encoder makes a view that leaves out the leading byte.
                _ => return Err(EncodeError::Unusual),
            },
            Kind::Buffer => self.buffer(value)?,
            Kind::Raw => {
                let piece = value.getattr(intern!(self.py, "piece"))?;
                self.piece(&piece)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn int(&mut self, value: &Bound<'py, PyAny>) -> Result<()> {
        let mut overflow = 0;
        // SAFETY: the object is an int, or an instance of a subclass. Its value is read; no Python code is called.
        let number = unsafe { ffi::PyLong_AsLongLongAndOverflow(value.as_ptr(), &mut overflow) };
        if overflow == 0 {
            return self.output.int(number);
        }
        let (negative, digits) = self.helpers.digits(value)?;
        let digits = bytes_of(&digits)?;
        if let Ok(size) = u8::try_from(digits.len()) {
            self.output.put(&[110, size, u8::from(negative)])?;
        } else {
            self.output.header(111, digits.len())?;
            self.output.put(&[u8::from(negative)])?;
        }
        self.output.put(digits)
    }

    fn float(&mut self, number: f64) -> Result<()> {
        if number.is_finite() {
            let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
            self.output.put(&[70, a, b, c, d, e, f, g, h])
        } else if number.is_nan() {
            self.output.put(b"w\x03nan")
        } else if number > 0.0 {
            self.output.put(b"w\x03inf")
        } else {
            self.output.put(b"w\x04-inf")
        }
    }

    fn text(&mut self, value: &Bound<'py, PyAny>, is_atom: bool) -> Result<()> {
        let characters = characters(value);
        if characters < LARGE / 4 {
            return self.short_text(value, is_atom);
        }
        // Its UTF-8 has at least as many bytes.
        self.output.check(characters)?;
        // SAFETY: the object is a str, or an instance of a subclass. The result is a new reference, or null with an
        // error.
        let bytes =
            unsafe { Bound::from_owned_ptr_or_opt(self.py, ffi::PyUnicode_AsUTF8String(value.as_ptr())) };
        let Some(bytes) = bytes else { return self.lone_surrogate() };
        let text = bytes_of(&bytes)?;
        let size = text.len();
        if size < LARGE {
            return self.binary(text);
        }
        self.output.header(109, size)?;
        self.output.large(self.py, bytes, size)
    }

    fn short_text(&mut self, value: &Bound<'py, PyAny>, is_atom: bool) -> Result<()> {
        let mut size = 0;
        // Python caches the UTF-8 in the str object. For ASCII text, that is the text itself.
        // SAFETY: the object is a str, or an instance of a subclass. The bytes live as long as the object.
        let text = unsafe { ffi::PyUnicode_AsUTF8AndSize(value.as_ptr(), &mut size) };
        if text.is_null() {
            return self.lone_surrogate();
        }
        // SAFETY: Python returned the size with the pointer.
        let text = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), size.unsigned_abs()) };
        if is_atom { self.atom(text) } else { self.binary(text) }
    }

    /// Leaves text with lone surrogates to the pure encoder, which has a better error for it.
    fn lone_surrogate(&self) -> Result<()> {
        // Clears the error that Python has set.
        drop(PyErr::take(self.py));
        Err(EncodeError::Unusual)
    }

    fn atom(&mut self, name: &[u8]) -> Result<()> {
        if let Ok(size) = u8::try_from(name.len()) {
            self.output.put(&[119, size])?;
        } else {
            let size = u16::try_from(name.len()).map_err(|_| EncodeError::Unusual)?;
            let [high, low] = size.to_be_bytes();
            self.output.put(&[118, high, low])?;
        }
        self.output.put(name)
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.sized(109, bytes)
    }

    /// Has the package encode an object with a buffer, which may have many shapes.
    fn buffer(&mut self, value: &Bound<'py, PyAny>) -> Result<()> {
        let piece = self.helpers.leaf(value)?;
        self.piece(&piece)
    }

    /// Writes what the package has encoded: `bytes`, or an object with `parts`.
    fn piece(&mut self, piece: &Bound<'py, PyAny>) -> Result<()> {
        if let Ok(bytes) = piece.cast::<PyBytes>() {
            return self.output.put(bytes.as_bytes());
        }
        let parts = piece.getattr(intern!(self.py, "parts"))?;
        for part in parts.cast::<PyTuple>().map_err(|_| EncodeError::Unusual)?.iter() {
            let size = part.len()?;
            match part.cast::<PyBytes>() {
                Ok(bytes) if size < LARGE => self.output.put(bytes.as_bytes())?,
                // Large `bytes`, or a flat view of bytes.
                _ => self.output.large(self.py, part, size)?,
            }
        }
        Ok(())
    }
}

fn characters(text: &Bound<'_, PyAny>) -> usize {
    // SAFETY: the object is a str, or an instance of a subclass.
    unsafe { ffi::PyUnicode_GetLength(text.as_ptr()) }.unsigned_abs()
}
