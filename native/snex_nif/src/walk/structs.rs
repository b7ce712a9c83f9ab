//! Structs: those with a meaning of their own, and plain ones, which become dicts.

use super::{Container, Stop, Walk};
use crate::atoms;
use crate::options;
use rustler::types::map::MapIterator;
use rustler::{Atom, Binary, Term};

impl<'a> Walk<'a> {
    /// A map with a `__struct__`.
    pub(super) fn structure(&mut self, term: Term<'a>, module: Term<'a>) -> Result<(), Stop<'a>> {
        let Ok(module) = Atom::from_term(module) else { return self.map(term) };
        if module == atoms::map_set() {
            self.map_set(term)
        } else if module == atoms::serde_binary() {
            self.serde_binary(term)
        } else if module == atoms::serde_float() {
            self.serde_float(term)
        } else if module == atoms::serde_term() {
            // Its size is known only when it is encoded.
            self.spend_all()?;
            self.opaque(field(term, atoms::term())?)
        } else if module == atoms::serde_object() {
            self.serde_object(term)
        } else {
            self.map(term)
        }
    }

    fn map_set(&mut self, term: Term<'a>) -> Result<(), Stop<'a>> {
        let members = MapIterator::new(field(term, atoms::map())?).ok_or(Stop::BadTerm(term))?;
        let frozen = self.options.frozen;
        if frozen {
            self.pickle.frozenset_begin()
        } else {
            self.pickle.set_begin()
        }
        self.stack.push(Container::Set { members, index: 0, frozen });
        Ok(())
    }

    fn serde_binary(&mut self, term: Term<'a>) -> Result<(), Stop<'a>> {
        let binary_as = Atom::from_term(field(term, atoms::as_())?)
            .ok()
            .and_then(options::binary_as)
            .ok_or(Stop::BadTerm(term))?;
        self.binary(field(term, atoms::data())?, binary_as)
    }

    fn serde_float(&mut self, term: Term<'a>) -> Result<(), Stop<'a>> {
        let value = field(term, atoms::value())?;
        let Ok(name) = Atom::from_term(value) else { return self.float(value) };
        let special = if name == atoms::inf() {
            f64::INFINITY
        } else if name == atoms::negative_inf() {
            f64::NEG_INFINITY
        } else if name == atoms::nan() {
            f64::NAN
        } else {
            return Err(Stop::BadTerm(term));
        };
        self.pickle.float(special);
        Ok(())
    }

    fn serde_object(&mut self, term: Term<'a>) -> Result<(), Stop<'a>> {
        let module = text(field(term, atoms::module())?).ok_or(Stop::BadTerm(term))?;
        let class = text(field(term, atoms::class())?).ok_or(Stop::BadTerm(term))?;
        self.pickle.global_named(module, class);
        self.pickle.arguments_begin();
        let args = field(term, atoms::args())?;
        self.stack.push(Container::Arguments { rest: args, whole: term });
        Ok(())
    }
}

fn field<'a>(term: Term<'a>, name: Atom) -> Result<Term<'a>, Stop<'a>> {
    term.map_get(name).map_err(|_| Stop::BadTerm(term))
}

fn text(term: Term<'_>) -> Option<&str> {
    std::str::from_utf8(Binary::from_term(term).ok()?.as_slice()).ok()
}
