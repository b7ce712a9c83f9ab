//! Encoding options, as `Snex.Serde` normalises them: `{binary_as, set_as, atom_as, encoded, structs_as,
//! dataframe_as}`. Each of them may be `nil`, for the interpreter's option, except `encoded`, which is a list.

use crate::atoms;
use rustler::{Atom, Decoder, Error, NifResult, Term};
use snex_core::pickle::{BinaryAs, Global};

/// What values become in Python, where there is a choice.
#[derive(Clone, Copy)]
pub struct Options {
    /// What a binary becomes.
    pub binary_as: BinaryAs,
    /// Whether a `MapSet` becomes a `frozenset` rather than a `set`.
    pub frozen: bool,
    /// What an atom becomes.
    pub atom_as: Global,
    /// Whether a struct with a counterpart in Python becomes that rather than a dict.
    pub native: bool,
    /// The Python library for data frames; `None` lets Python choose.
    pub dataframe_as: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            binary_as: BinaryAs::Str,
            frozen: false,
            atom_as: Global::Atom,
            native: false,
            dataframe_as: None,
        }
    }
}

/// The options of one call. Where an option is `None`, that of the interpreter applies.
#[derive(Clone, Copy, Default)]
pub struct CallOptions<'a> {
    /// The structs that an earlier walk found, and how Elixir encoded them: a list of `{struct, encoded}`.
    pub encoded: Option<Term<'a>>,
    binary_as: Option<BinaryAs>,
    frozen: Option<bool>,
    atom_as: Option<Global>,
    native: Option<bool>,
    dataframe_as: Option<&'static str>,
}

impl CallOptions<'_> {
    /// These options, laid over `base`.
    pub fn over(self, base: Options) -> Options {
        Options {
            binary_as: self.binary_as.unwrap_or(base.binary_as),
            frozen: self.frozen.unwrap_or(base.frozen),
            atom_as: self.atom_as.unwrap_or(base.atom_as),
            native: self.native.unwrap_or(base.native),
            dataframe_as: self.dataframe_as.or(base.dataframe_as),
        }
    }
}

impl<'a> Decoder<'a> for CallOptions<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (binary, set, atom, encoded, structs, frames): (Atom, Atom, Atom, Term<'a>, Atom, Atom) =
            term.decode()?;
        Ok(CallOptions {
            encoded: (!encoded.is_empty_list()).then_some(encoded),
            binary_as: optional(binary, binary_as)?,
            frozen: optional(set, |set| choose(set, [(atoms::set(), false), (atoms::frozenset(), true)]))?,
            atom_as: optional(atom, |atom| {
                choose(atom, [(atoms::atom(), Global::Atom), (atoms::distinct_atom(), Global::DistinctAtom)])
            })?,
            native: optional(structs, |structs| {
                choose(structs, [(atoms::dict(), false), (atoms::native(), true)])
            })?,
            dataframe_as: optional(frames, |frames| {
                choose(
                    frames,
                    [(atoms::pandas(), "pandas"), (atoms::polars(), "polars"), (atoms::pyarrow(), "pyarrow")],
                )
            })?,
        })
    }
}

/// `None` for `nil`; an error for an atom unknown to `read`.
fn optional<T>(atom: Atom, read: impl Fn(Atom) -> Option<T>) -> NifResult<Option<T>> {
    if atom == atoms::nil() { Ok(None) } else { read(atom).map(Some).ok_or(Error::BadArg) }
}

/// The Python type that an atom such as `:bytes` names.
pub fn binary_as(atom: Atom) -> Option<BinaryAs> {
    choose(
        atom,
        [
            (atoms::str(), BinaryAs::Str),
            (atoms::bytes(), BinaryAs::Bytes),
            (atoms::bytearray(), BinaryAs::Bytearray),
            (atoms::memoryview(), BinaryAs::Memoryview),
        ],
    )
}

/// The value that an atom stands for.
pub fn choose<T: Copy, const N: usize>(atom: Atom, choices: [(Atom, T); N]) -> Option<T> {
    choices.iter().find(|(name, _)| *name == atom).map(|(_, value)| *value)
}
