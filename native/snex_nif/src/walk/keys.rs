//! Whether keys that Elixir tells apart may be equal in Python.

use crate::options::Options;
use rustler::TermType;
use snex_core::pickle::{BinaryAs, Global};

/// Types of the keys of a map, or of the members of a set: a bit for each.
#[derive(Clone, Copy, Default)]
pub struct Keys(u32);

const ATOM: u32 = bit(TermType::Atom);
const BINARY: u32 = bit(TermType::Binary);
const INTEGER: u32 = bit(TermType::Integer);

const fn bit(kind: TermType) -> u32 {
    1 << kind as u32
}

impl Keys {
    /// Adds that of a key. This is done for each, and has to cost nothing.
    pub fn add(&mut self, kind: TermType) {
        self.0 |= bit(kind);
    }

    /// Whether some of several keys may be equal, so that Python has to count them. Most maps have keys of one type.
    pub fn may_be_equal(self, options: &Options) -> bool {
        let has = |kinds| self.0 & kinds == kinds;
        // A float equals an integer, or its own negative if it is zero, and what has parts may have anything in it. `True` equals 1.
        self.0 & !(ATOM | BINARY | INTEGER) != 0
            || has(ATOM | INTEGER)
            || (has(ATOM | BINARY) && options.atom_as == Global::Atom && options.binary_as == BinaryAs::Str)
    }
}
