//! `snex._etf._native`: what of the package is done better by an extension of CPython: the encoder of `snex._etf.encoder`, memory
//! for large bodies that arrive ([`room`]), the items of streams ([`batch`]), and the look-out before a sleep ([`look_out`]).
//!
//! The encoder encodes what is of Snex's own types, and subclasses of these, to the same bytes as the pure one. Whatever is
//! unusual (an error of any kind, a cycle, keys that collide) it leaves to the pure encoder, which starts over and says
//! what is wrong; so there is one place that knows about that.

mod access;
mod alike;
mod batch;
mod encoder;
mod huge_pages;
mod kinds;
mod known_keys;
mod leaves;
mod look_out;
mod output;
mod room;

use encoder::{EncodeError, Encoder};
use kinds::Helpers;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

static HELPERS: PyOnceLock<Helpers> = PyOnceLock::new();

/// Tells the extension about the package's classes, and how to go on with what it does not know.
#[pyfunction]
fn set_up(py: Python<'_>, helpers: Helpers) {
    // A second time tells nothing new.
    let _ = HELPERS.set(py, helpers);
}

/// As `Limit.reply` in `_wire/frame.py`.
static REPLY_LIMIT: AtomicUsize = AtomicUsize::new(2 << 30);

/// Sets how many bytes a value may have. What no address space holds is no limit.
#[pyfunction]
fn set_reply_limit(limit: u64) {
    REPLY_LIMIT.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
}

/// From now on the package is asked about each object of a subclass: it may have an encoder for it.
#[pyfunction]
fn ask_subclasses() {
    kinds::ASK_SUBCLASSES.store(true, Relaxed);
}

/// As `snex._etf.encoder.encode_pure`.
#[pyfunction]
#[pyo3(signature = (obj, spare = 0, auto = false))]
fn encode<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    spare: usize,
    auto: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let helpers = helpers(py)?;
    let limit = REPLY_LIMIT.load(Relaxed).saturating_add(spare);
    match Encoder::new(py, helpers, auto, limit).encode(obj) {
        Ok(parts) => Ok(parts),
        Err(EncodeError::Unusual) => helpers.pure.bind(py).call1((obj, spare, auto)),
        Err(EncodeError::TooLarge { surplus }) => Err(helpers.too_large(py, surplus)),
        Err(EncodeError::Error(error)) => Err(error),
    }
}

/// As `snex._etf.encoder.encode_item_pure`.
#[pyfunction]
fn encode_item<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    objects: &Bound<'py, PyList>,
    auto: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let helpers = helpers(py)?;
    let before = objects.len();
    // The leading 131 counts, for the pure encoder makes it.
    let limit = REPLY_LIMIT.load(Relaxed).saturating_sub(1);
    let encoder = Encoder::new(py, helpers, auto, limit);
    let parts = encoder.encode_item(obj, Some(objects.clone())).and_then(|(output, _)| output.into_parts(py));
    match parts {
        Ok(parts) => Ok(parts.into_any()),
        Err(EncodeError::Unusual) => {
            objects.del_slice(before, objects.len())?;
            Ok(PyList::new(py, helpers.encode_item(obj, objects, auto)?)?.into_any())
        }
        Err(EncodeError::TooLarge { surplus }) => Err(helpers.too_large(py, surplus)),
        Err(EncodeError::Error(error)) => Err(error),
    }
}

/// What `set_up` has told.
fn helpers(py: Python<'_>) -> PyResult<&Helpers> {
    HELPERS.get(py).ok_or_else(|| PyRuntimeError::new_err("snex._etf._native has not been set up"))
}

#[pymodule(gil_used = true)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_up, module)?)?;
    module.add_function(wrap_pyfunction!(encode, module)?)?;
    module.add_function(wrap_pyfunction!(encode_item, module)?)?;
    module.add_function(wrap_pyfunction!(set_reply_limit, module)?)?;
    module.add_function(wrap_pyfunction!(ask_subclasses, module)?)?;
    module.add_function(wrap_pyfunction!(look_out::look_out, module)?)?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<room::Room>()
}
