//! Whether keys that Elixir tells apart may be equal in Python.

use crate::options::Options;
use rustler::TermType;
use snex_core::pickle::{BinaryAs, Global};

/// Types of the keys of a map, or of the members of a set.
#[derive(Clone, Copy, Default)]
pub struct Keys(u8);

const ATOM: u8 = 1;
const BINARY: u8 = 2;
const INTEGER: u8 = 4;
/// A float, which equals an integer, or its own negative if it is zero; or something with parts, in which there may be anything.
const OTHER: u8 = 8;

impl Keys {
    /// Adds that of a key.
    pub fn add(&mut self, kind: TermType) {
        self.0 |= match kind {
            TermType::Atom => ATOM,
            TermType::Binary => BINARY,
            TermType::Integer => INTEGER,
            _ => OTHER,
        };
    }

    /// Whether some of several keys may be equal, so that Python has to count them. Most maps have keys of one type.
    pub fn may_be_equal(self, options: &Options) -> bool {
        let has = |kinds| self.0 & kinds == kinds;
        // `True` equals 1.
        has(OTHER)
            || has(ATOM | INTEGER)
            || (has(ATOM | BINARY) && options.atom_as == Global::Atom && options.binary_as == BinaryAs::Str)
    }
}
