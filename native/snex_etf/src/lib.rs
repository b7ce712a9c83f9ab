//! `snex._etf._native`: an extension of CPython for the parts of the package that it speeds up. These are the encoder
//! of `snex._etf.encoder`, memory for large bodies of incoming frames ([`room`]), the items of streams ([`batch`]),
//! and a short spin before a sleep ([`spin`]).
//!
//! The encoder encodes Python's built-in types, Snex's own, and their subclasses, to the same bytes as the pure
//! encoder. In all unusual cases (an error of any kind, a cycle, colliding keys) the pure encoder starts over and
//! raises the error, so only that one has to know about these.

mod access;
mod alike;
mod batch;
mod encoder;
mod huge_pages;
mod kinds;
mod known_keys;
mod leaves;
mod output;
mod room;
mod spin;

use encoder::{EncodeError, Encoder};
use kinds::Helpers;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

// Cargo builds this crate anew when the variable differs; see `cargo_build` in mix/compile_cargo.ex.
const _: Option<&str> = option_env!("SNEX_SOURCES");

static HELPERS: PyOnceLock<Helpers> = PyOnceLock::new();

/// Gives the extension the package's classes and functions.
#[pyfunction]
fn set_up(py: Python<'_>, helpers: Helpers) {
    // A second call has the same helpers.
    let _ = HELPERS.set(py, helpers);
}

/// The same as `Limit.reply` in `_wire/frame.py`.
static REPLY_LIMIT: AtomicUsize = AtomicUsize::new(2 << 30);

/// Sets how many bytes a value may have. A limit beyond the address space has no effect.
#[pyfunction]
fn set_reply_limit(limit: u64) {
    REPLY_LIMIT.store(usize::try_from(limit).unwrap_or(usize::MAX), Relaxed);
}

/// From now on, the package is asked about instances of subclasses, for which it may have an encoder.
#[pyfunction]
fn ask_subclasses() {
    kinds::ASK_SUBCLASSES.store(true, Relaxed);
}

/// The counterpart of `snex._etf.encoder.encode_pure`.
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

/// The counterpart of `snex._etf.encoder.encode_item_pure`.
#[pyfunction]
fn encode_item<'py>(
    py: Python<'py>,
    obj: &Bound<'py, PyAny>,
    objects: &Bound<'py, PyList>,
    auto: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let helpers = helpers(py)?;
    let before = objects.len();
    // The pure encoder counts the leading byte 131, which is left out here.
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

/// The helpers given to `set_up`.
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
    module.add_function(wrap_pyfunction!(spin::spin, module)?)?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<room::Room>()
}
