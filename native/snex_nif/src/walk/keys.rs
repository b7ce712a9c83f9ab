//! Whether keys that differ in Elixir may be equal in Python.

use crate::options::Options;
use rustler::TermType;
use snex_core::pickle::{BinaryAs, Global};

/// The types of the keys of a map, or of the members of a set: one bit for each type.
#[derive(Clone, Copy, Default)]
pub struct Keys(u32);

const ATOM: u32 = bit(TermType::Atom);
const BINARY: u32 = bit(TermType::Binary);
const INTEGER: u32 = bit(TermType::Integer);

const fn bit(kind: TermType) -> u32 {
    1 << kind as u32
}

impl Keys {
    /// Adds the type of a key. Called for every key, so it has to be cheap.
    pub fn add(&mut self, kind: TermType) {
        self.0 |= bit(kind);
    }

    /// Whether some of several keys may be equal, so that Python has to count them. Most maps have keys of one type,
    /// and so don't need it.
    pub fn may_be_equal(self, options: &Options) -> bool {
        let has = |kinds| self.0 & kinds == kinds;
        // In Python, `1.0 == 1`, `-0.0 == 0.0` and `True == 1`. Containers may contain any of these.
        self.0 & !(ATOM | BINARY | INTEGER) != 0
            || has(ATOM | INTEGER)
            || (has(ATOM | BINARY) && options.atom_as == Global::Atom && options.binary_as == BinaryAs::Str)
    }
}
