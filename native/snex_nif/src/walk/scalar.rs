//! Terms that contain no other terms.

use super::{Walk, WalkError};
use crate::atoms;
use crate::binary_ref::BinaryRef;
use rustler::{Atom, Binary, Term};
use snex_core::pickle::{BUFFER_THRESHOLD, BinaryAs};

// Tags of the external term format: https://www.erlang.org/doc/apps/erts/erl_ext_dist.html
const VERSION: u8 = 131;
const SMALL_BIG: u8 = 110;
const LARGE_BIG: u8 = 111;

impl<'a> Walk<'a> {
    pub(super) fn integer(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        if let Ok(value) = term.decode::<i64>() {
            self.pickle.int(value);
            return Ok(());
        }
        // NIFs can read integers of this size only in external term format.
        let etf = term.to_binary();
        let (negative, magnitude) = match etf.as_slice() {
            [VERSION, SMALL_BIG, _, sign, magnitude @ ..]
            | [VERSION, LARGE_BIG, _, _, _, _, sign, magnitude @ ..] => (*sign != 0, magnitude),
            _ => return Err(WalkError::BadTerm(term)),
        };
        self.pickle.long(negative, magnitude);
        Ok(())
    }

    pub(super) fn float(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let value = term.decode::<f64>().map_err(|_| WalkError::BadTerm(term))?;
        self.pickle.float(value);
        Ok(())
    }

    pub(super) fn atom(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let atom = Atom::from_term(term).map_err(|_| WalkError::BadTerm(term))?;
        if atom == atoms::nil() {
            self.pickle.none();
        } else if atom == atoms::true_() {
            self.pickle.bool(true);
        } else if atom == atoms::false_() {
            self.pickle.bool(false);
        } else if !self.recall(term) {
            let name = term.atom_to_string().map_err(|_| WalkError::BadTerm(term))?;
            self.pickle.call(self.options.atom_as, |pickle| pickle.str(&name));
            self.keep(term);
        }
        Ok(())
    }

    pub(super) fn binary(&mut self, term: Term<'a>, binary_as: BinaryAs) -> Result<(), WalkError<'a>> {
        let Ok(binary) = Binary::from_term(term) else {
            // A bitstring that is not a whole number of bytes.
            self.opaque(term);
            return Ok(());
        };
        if binary.len() >= BUFFER_THRESHOLD {
            let binary = BinaryRef::new(term).ok_or(WalkError::BadTerm(term))?;
            self.pickle.buffer(binary, binary_as);
        } else {
            self.pickle.binary(binary.as_slice(), binary_as);
        }
        Ok(())
    }
}
