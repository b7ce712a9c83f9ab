//! `snex._etf`: what of the package is done better by an extension of CPython: the encoder of `snex._encoder`, and memory
//! for large bodies that arrive ([`room`]).
//!
//! The encoder encodes what is of Snex's own types, and subclasses of these, to the same bytes as the pure one. Whatever is
//! unusual (an error of any kind, a cycle, keys that collide) it leaves to the pure encoder, which starts over and says
//! what is wrong; so there is one place that knows about that.

mod access;
mod encoder;
mod huge_pages;
mod kinds;
mod leaves;
mod output;
mod room;

use encoder::{Encoder, Stop};
use kinds::Helpers;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

static HELPERS: PyOnceLock<Helpers> = PyOnceLock::new();

/// Tells the extension about the package's classes, and how to go on with what it does not know.
#[pyfunction]
fn set_up(py: Python<'_>, helpers: Helpers) {
    // A second time tells nothing new.
    let _ = HELPERS.set(py, helpers);
}

/// As `snex._encoder.encode`.
#[pyfunction]
fn encode<'py>(py: Python<'py>, obj: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let Some(helpers) = HELPERS.get(py) else {
        return Err(PyRuntimeError::new_err("snex._etf has not been set up"));
    };
    match Encoder::new(py, helpers, 0).encode(obj) {
        Ok(output) => output.into_parts(py).map(Bound::into_any),
        Err(Stop::Unusual) => helpers.pure.bind(py).call1((obj,)),
        Err(Stop::Error(error)) => Err(error),
    }
}

#[pymodule(gil_used = true)]
fn _etf(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_up, module)?)?;
    module.add_function(wrap_pyfunction!(encode, module)?)?;
    module.add_class::<room::Room>()
}
