//! Items of a stream that wait to be sent. The counterpart of `snex._eval.batch`, which explains it.
//!
//! The producing thread is in [`Batch::fill`] most of the time, which runs the user's code. Meanwhile, the event
//! loop's thread takes what has been collected. So no `RefCell` may be borrowed while Python code could run: each
//! item is encoded on its own, and then added in one step that does not release the GIL.

use crate::encoder::{EncodeError, Encoder};
use crate::kinds::Helpers;
use crate::{REPLY_LIMIT, helpers};
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;

/// The same as in `_eval/batch.py`.
const DUE: u8 = 1;
const FULL: u8 = 2;
const STOPPED: u8 = 4;
const END: u8 = 8;
const ENOUGH: usize = 64 * 1024;

/// The same as in `_wire/frame.py`.
const AUTO: u8 = 4;
const OBJECT: u8 = 8;

/// The size of the version byte 131, the tag of a list, and its length.
const HEAD: usize = 6;

/// Encoded items, one after the other.
#[derive(Default)]
struct Collected {
    count: usize,
    /// If there are large binaries: the parts before `bytes`.
    parts: Vec<Py<PyAny>>,
    bytes: Vec<u8>,
    /// The objects that handles stand for, and how many of them belong to the items so far. An item that is being
    /// encoded may have added more.
    objects: Option<Py<PyList>>,
    handles: usize,
}

/// One encoded item: parts, and the bytes after them.
struct Encoded<'py> {
    parts: Vec<Bound<'py, PyAny>>,
    bytes: Vec<u8>,
    objects: Option<Bound<'py, PyList>>,
}

/// A number of items, and their size. Counts may wrap around.
#[derive(Clone, Copy, Default)]
struct Count {
    items: usize,
    bytes: usize,
}

impl Count {
    fn add(self, more: Count) -> Count {
        Count { items: self.items.wrapping_add(more.items), bytes: self.bytes.wrapping_add(more.bytes) }
    }

    fn since(self, before: Count) -> Count {
        Count { items: self.items.wrapping_sub(before.items), bytes: self.bytes.wrapping_sub(before.bytes) }
    }
}

#[pyclass(module = "snex._etf._native", frozen)]
pub struct Batch {
    demand: usize,
    most: usize,
    half: usize,
    enough: usize,
    auto: bool,
    whole: bool,
    collected: RefCell<Collected>,
    in_flight: RefCell<VecDeque<Count>>,
    produced: Cell<Count>,
    sent: Cell<Count>,
    taken: Cell<Count>,
    stopped: Cell<bool>,
    /// The memory in which items are encoded, reused for each.
    scratch: Cell<Vec<u8>>,
}

// SAFETY: only methods use the fields. These run with the GIL held, and no borrow lasts while the GIL may be
// released.
unsafe impl Sync for Batch {}

#[pymethods]
impl Batch {
    #[new]
    fn new(demand: usize, most: usize, flags: u8) -> Self {
        Batch {
            demand,
            most,
            half: (demand / 2).max(1),
            enough: ENOUGH.min(most / 2),
            auto: flags & AUTO != 0,
            whole: flags & OBJECT != 0,
            collected: RefCell::default(),
            in_flight: RefCell::default(),
            produced: Cell::default(),
            sent: Cell::default(),
            taken: Cell::default(),
            stopped: Cell::default(),
            scratch: Cell::default(),
        }
    }

    #[getter]
    fn stopped(&self) -> bool {
        self.stopped.get()
    }

    #[setter]
    fn set_stopped(&self, stopped: bool) {
        self.stopped.set(stopped);
    }

    #[getter]
    fn is_full(&self) -> bool {
        let untaken = self.produced.get().since(self.taken.get());
        untaken.items >= self.demand || untaken.bytes >= self.most
    }

    #[getter]
    fn has_room(&self) -> bool {
        let untaken = self.produced.get().since(self.taken.get());
        untaken.items <= self.demand.saturating_sub(self.half) && untaken.bytes <= self.most / 2
    }

    #[getter]
    fn is_due(&self) -> bool {
        let (produced, sent) = (self.produced.get(), self.sent.get());
        let waiting = produced.since(sent);
        waiting.items > 0
            && (waiting.items >= self.half
                || sent.items == self.taken.get().items
                || waiting.bytes >= self.enough)
    }

    #[getter]
    fn total(&self) -> usize {
        self.produced.get().items
    }

    fn put(&self, item: &Bound<'_, PyAny>) -> PyResult<u8> {
        self.add(item)
    }

    fn fill(&self, iterator: &Bound<'_, PyAny>, most: usize) -> PyResult<u8> {
        let py = iterator.py();
        // SAFETY: a living object.
        if unsafe { ffi::PyIter_Check(iterator.as_ptr()) } == 0 {
            return Err(PyTypeError::new_err("not an iterator"));
        }
        for _ in 0..most {
            // SAFETY: the object is an iterator. The result is a new reference, or null at the end, and if the
            // iterator has raised.
            let item = unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyIter_Next(iterator.as_ptr())) };
            let Some(item) = item else {
                return PyErr::take(py).map_or(Ok(END), Err);
            };
            let state = self.add(&item)?;
            if state != 0 {
                return Ok(state);
            }
        }
        Ok(0)
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<(usize, Bound<'py, PyAny>)>> {
        let before = self.sent.get();
        let Some((parts, objects, handles)) = self.take_parts(py)? else { return Ok(None) };
        let parts = PyList::new(py, parts)?.into_any();
        let body = match objects {
            Some(objects) if handles > 0 => {
                helpers(py)?.with_handles(parts, objects.bind(py).get_slice(0, handles))?
            }
            _ => parts,
        };
        Ok(Some((before.items, body)))
    }

    fn credit(&self, mut count: usize) {
        let mut frames = self.in_flight.borrow_mut();
        while let Some(&frame) = frames.front()
            && frame.items <= count
        {
            frames.pop_front();
            count -= frame.items;
            self.taken.set(self.taken.get().add(frame));
        }
    }
}

type Taken = (Vec<Py<PyAny>>, Option<Py<PyList>>, usize);

impl Batch {
    /// Takes what has been collected: the parts, the objects, and how many of the objects belong to it. Updates the
    /// counts.
    fn take_parts(&self, py: Python<'_>) -> PyResult<Option<Taken>> {
        let mut collected = self.collected.borrow_mut();
        let count = collected.count;
        if count == 0 {
            return Ok(None);
        }
        let mut frames = self.in_flight.borrow_mut();
        frames.try_reserve(1).map_err(|_| no_memory())?;
        collected.parts.try_reserve(2).map_err(|_| no_memory())?;
        let mut head = [131, 108, 0, 0, 0, 0];
        head[2..].copy_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        // Making `bytes` objects runs no Python code.
        if collected.parts.is_empty() {
            let bytes = &collected.bytes;
            let body = PyBytes::new_with(py, HEAD + bytes.len() + 1, |room| {
                room[..HEAD].copy_from_slice(&head);
                room[HEAD..HEAD + bytes.len()].copy_from_slice(bytes);
                room[HEAD + bytes.len()] = b'j';
                Ok(())
            })?;
            collected.parts.push(body.into_any().unbind());
        } else {
            let first = bytes_of(py, &head)?;
            collected.bytes.try_reserve(1).map_err(|_| no_memory())?;
            collected.bytes.push(b'j');
            let last = bytes_of(py, &collected.bytes);
            let Ok(last) = last else {
                collected.bytes.pop();
                return Err(no_memory());
            };
            collected.parts.insert(0, first.into_any().unbind());
            collected.parts.push(last.into_any().unbind());
        }
        collected.bytes.clear();
        collected.count = 0;
        let taken = (
            std::mem::take(&mut collected.parts),
            collected.objects.take(),
            std::mem::take(&mut collected.handles),
        );
        frames.push_back(self.produced.get().since(self.sent.get()));
        self.sent.set(self.produced.get());
        Ok(Some(taken))
    }

    fn add(&self, item: &Bound<'_, PyAny>) -> PyResult<u8> {
        let py = item.py();
        let helpers = helpers(py)?;
        if self.whole {
            self.add_as(&helpers.keep(item)?, helpers)?;
        } else {
            self.add_as(item, helpers)?;
        }
        let mut state = 0;
        if self.is_due() {
            state |= DUE;
        }
        if self.is_full() {
            state |= FULL;
        }
        if self.stopped.get() {
            state |= STOPPED;
        }
        Ok(state)
    }

    fn add_as(&self, item: &Bound<'_, PyAny>, helpers: &Helpers) -> PyResult<()> {
        let py = item.py();
        loop {
            let sent = self.sent.get().items;
            let objects = self.collected.borrow().objects.as_ref().map(|objects| objects.bind(py).clone());
            let before = objects.as_ref().map_or(0, |objects| objects.len());
            let encoded = match self.encode(item, helpers, objects.clone()) {
                Ok(encoded) => encoded,
                Err(error) => {
                    // Removes the objects of handles in the part that was encoded before the error.
                    cut(objects.as_ref(), before)?;
                    return Err(error);
                }
            };
            let handles = encoded.objects.as_ref().map_or(0, |objects| objects.len());
            // If the event loop has taken the items before this one meanwhile, its handles have the wrong indexes:
            // encode it again.
            if before == 0 || handles == before || sent == self.sent.get().items {
                return self.append(encoded, handles > before, handles);
            }
        }
    }

    fn encode<'py>(
        &self,
        item: &Bound<'py, PyAny>,
        helpers: &Helpers,
        objects: Option<Bound<'py, PyList>>,
    ) -> PyResult<Encoded<'py>> {
        let py = item.py();
        let before = objects.as_ref().map_or(0, |objects| objects.len());
        // The pure encoder counts the leading byte 131, which is left out here.
        let limit = REPLY_LIMIT.load(Relaxed).saturating_sub(1);
        let encoder = Encoder::with_memory(py, helpers, self.auto, limit, self.scratch.take());
        let mut encoded = match encoder.encode_item(item, objects.clone()) {
            Ok((output, objects)) => {
                let (parts, bytes) = output.into_rest();
                Encoded { parts, bytes, objects }
            }
            Err(EncodeError::Unusual) => {
                cut(objects.as_ref(), before)?;
                let objects = objects.unwrap_or_else(|| PyList::empty(py));
                let parts = helpers.encode_item(item, &objects, self.auto)?;
                Encoded { parts, bytes: Vec::new(), objects: Some(objects) }
            }
            Err(EncodeError::TooLarge { surplus }) => return Err(helpers.too_large(py, surplus)),
            Err(EncodeError::Error(error)) => return Err(error),
        };
        for part in &mut encoded.parts {
            if !part.is_exact_instance_of::<PyBytes>() {
                *part = helpers.frozen(part)?;
            }
        }
        Ok(encoded)
    }

    /// Adds an encoded item. Runs no Python code.
    fn append(&self, encoded: Encoded<'_>, has_handles: bool, handles: usize) -> PyResult<()> {
        let Encoded { parts, mut bytes, objects } = encoded;
        let mut size = bytes.len();
        for part in &parts {
            size += part.len()?;
        }
        let mut collected = self.collected.borrow_mut();
        collected.bytes.try_reserve(bytes.len()).map_err(|_| no_memory())?;
        if let Some(first) = parts.first() {
            let py = first.py();
            collected.parts.try_reserve(parts.len() + 1).map_err(|_| no_memory())?;
            if !collected.bytes.is_empty() {
                let small = bytes_of(py, &collected.bytes)?;
                collected.parts.push(small.into_any().unbind());
                collected.bytes.clear();
            }
            collected.parts.extend(parts.into_iter().map(Bound::unbind));
        }
        collected.bytes.extend_from_slice(&bytes);
        collected.count += 1;
        let former = match objects {
            Some(objects) if has_handles => {
                collected.handles = handles;
                collected.objects.replace(objects.unbind())
            }
            _ => None,
        };
        self.produced.set(self.produced.get().add(Count { items: 1, bytes: size }));
        drop(collected);
        drop(former);
        bytes.clear();
        if bytes.capacity() <= ENOUGH {
            self.scratch.set(bytes);
        }
        Ok(())
    }
}

/// Makes a `bytes` object. Runs no Python code.
fn bytes_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |room| {
        room.copy_from_slice(bytes);
        Ok(())
    })
}

fn no_memory() -> PyErr {
    PyMemoryError::new_err(())
}

/// Shortens a list to its former length.
fn cut(objects: Option<&Bound<'_, PyList>>, length: usize) -> PyResult<()> {
    objects.map_or(Ok(()), |objects| objects.del_slice(length, objects.len()))
}
