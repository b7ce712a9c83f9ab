//! Arrays: `Snex.Array`, and tensors of Nx whose numbers are in a binary. Elixir converts other tensors first.
//!
//! For an invalid array, a refusal is written in its place. Python then raises an error that says where that is.

use super::structs::field;
use super::{Walk, WalkError, tuple};
use crate::atoms;
use rustler::{Atom, Binary, Term};
use snex_core::pickle::{BinaryAs, Global};

/// The parts of an array that Python needs.
struct Array<'a> {
    /// The name of the type, as Python knows it.
    name: String,
    shape: Vec<u64>,
    data: Term<'a>,
}

/// Whether a struct is a tensor whose numbers are not in a binary of this VM.
pub fn is_elsewhere(term: Term<'_>, module: Atom) -> bool {
    module == atoms::tensor_struct() && binary_of_tensor(term).is_none()
}

fn binary_of_tensor(term: Term<'_>) -> Option<Term<'_>> {
    let backend = term.map_get(atoms::data()).ok()?;
    let module = backend.map_get(atoms::__struct__()).ok()?;
    (atoms::tensor_binary() == module).then(|| backend.map_get(atoms::state()).ok())?
}

impl<'a> Walk<'a> {
    /// Writes a struct that has no encoder of the user, if it is an array. Returns false if it is not.
    pub(super) fn array(&mut self, term: Term<'a>, module: Atom) -> Result<bool, WalkError<'a>> {
        let read = if module == atoms::array_struct() {
            read(term, field(term, atoms::data())?)
        } else if module == atoms::tensor_struct() {
            match binary_of_tensor(term) {
                Some(data) => read(term, data),
                None => return Err(WalkError::BadTerm(term)),
            }
        } else {
            return Ok(false);
        };
        match read {
            Ok(array) => self.write(array)?,
            Err(why) => self.refuse(&why)?,
        }
        Ok(true)
    }

    fn write(&mut self, array: Array<'a>) -> Result<(), WalkError<'a>> {
        self.pickle.global(Global::Array);
        self.pickle.arguments_begin();
        self.pickle.str(&array.name);
        self.pickle.tuple_begin(array.shape.len());
        array.shape.iter().for_each(|size| self.pickle.int(size.cast_signed()));
        self.pickle.tuple_end(array.shape.len());
        self.binary(array.data, BinaryAs::Memory)?;
        self.pickle.arguments_end();
        Ok(())
    }
}

/// Reads an array. The error says why it is invalid.
fn read<'a>(term: Term<'a>, data: Term<'a>) -> Result<Array<'a>, String> {
    let not_a_type = "its type is none of an array's: see Snex.Array.type/0";
    let kind = term.map_get(atoms::type_()).map_err(|_| not_a_type)?;
    let (kind, bits): (Atom, u64) = kind.decode().map_err(|_| not_a_type)?;
    let name = name_of(kind, bits).ok_or_else(|| {
        if [atoms::s(), atoms::u()].contains(&kind) && bits < 8 {
            "Python has no integers of less than 8 bits: convert it with Nx.as_type/2".to_string()
        } else {
            not_a_type.to_string()
        }
    })?;
    let shape = shape_of(term).ok_or("its shape is no tuple of sizes")?;
    let size = shape
        .iter()
        .try_fold(bits / 8, |size, axis| size.checked_mul(*axis))
        .filter(|size| i64::try_from(*size).is_ok())
        .ok_or("its shape is larger than any memory")?;
    let length = Binary::from_term(data).map_err(|_| "its data is no binary")?.len() as u64;
    if length == size {
        return Ok(Array { name, shape, data });
    }
    let shown: Vec<String> = shape.iter().map(u64::to_string).collect();
    Err(format!(
        "an array of type {name} and shape {{{}}} has {size} bytes, and its data has {length}",
        shown.join(", ")
    ))
}

/// The name of a type, for Python and for messages; `None` if Python has no counterpart.
fn name_of(kind: Atom, bits: u64) -> Option<String> {
    let (name, sizes): (&str, &[u64]) = if kind == atoms::u() {
        ("u", &[8, 16, 32, 64])
    } else if kind == atoms::s() {
        ("s", &[8, 16, 32, 64])
    } else if kind == atoms::f() {
        ("f", &[8, 16, 32, 64])
    } else if kind == atoms::bf() {
        ("bf", &[16])
    } else if kind == atoms::c() {
        ("c", &[64, 128])
    } else if kind == atoms::f8_e4m3fn() {
        return (bits == 8).then(|| "f8_e4m3fn".to_string());
    } else {
        return None;
    };
    sizes.contains(&bits).then(|| format!("{name}{bits}"))
}

/// The sizes of all axes. The vectorized axes of a tensor come first, as after `Nx.devectorize/1`.
fn shape_of(term: Term<'_>) -> Option<Vec<u64>> {
    let mut shape = Vec::new();
    if let Ok(axes) = term.map_get(atoms::vectorized_axes()) {
        let axes: Vec<(Term<'_>, u64)> = axes.decode().ok()?;
        shape.extend(axes.into_iter().map(|(_name, size)| size));
    }
    let sizes = term.map_get(atoms::shape()).ok()?;
    for size in tuple::items(sizes)? {
        shape.push(tuple::item(sizes, *size).decode().ok()?);
    }
    // If one axis has no elements, the total size says nothing about the others.
    shape.iter().all(|size| i64::try_from(*size).is_ok()).then_some(shape)
}
