//! Data frames and series: `Snex.Arrow`. Elixir converts those of Explorer to it first.

use super::structs::field;
use super::{Walk, WalkError};
use crate::atoms;
use crate::options;
use rustler::{Atom, Term};
use snex_core::pickle::{BinaryAs, Global};

impl<'a> Walk<'a> {
    /// Writes a struct that has no encoder of the user, if it is a frame or series. Returns false if it is not.
    pub(super) fn frame(&mut self, term: Term<'a>, module: Atom) -> Result<bool, WalkError<'a>> {
        if module != atoms::arrow_struct() {
            return Ok(false);
        }
        let kinds = [(atoms::frame(), false), (atoms::series(), true)];
        let kind = Atom::from_term(field(term, atoms::kind())?).ok();
        let data = field(term, atoms::data())?;
        let Some(is_series) = kind.and_then(|kind| options::choose(kind, kinds)) else {
            self.refuse("it is neither a :frame nor a :series: see Snex.Arrow.new/2")?;
            return Ok(true);
        };
        if !data.is_binary() {
            self.refuse("its data is no binary: see Snex.Arrow.new/2")?;
            return Ok(true);
        }
        self.pickle.global(Global::Frame);
        self.pickle.arguments_begin();
        self.pickle.bool(is_series);
        self.binary(data, BinaryAs::Bytes)?;
        match self.options.dataframe_as {
            Some(library) => self.pickle.str(library),
            None => self.pickle.none(),
        }
        self.pickle.arguments_end();
        Ok(true)
    }
}
