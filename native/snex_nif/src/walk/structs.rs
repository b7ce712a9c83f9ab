//! Structs: Snex's own, those with an encoder, and plain ones, which become dicts.

use super::array;
use super::keys::Keys;
use super::{Container, Walk, WalkError};
use crate::atoms;
use crate::handle::{self, Access};
use crate::options;
use rustc_hash::{FxHashMap, FxHashSet};
use rustler::sys::ErlNifTerm;
use rustler::types::map::MapIterator;
use rustler::{Atom, Binary, Term, TermType};
use snex_core::pickle::Global;
use std::sync::{LazyLock, PoisonError, RwLock};

/// How deep encoded values may be nested. An encoder that always returns another struct would never end.
const DEEPEST: usize = 1_000;

/// Modules whose structs are known to have no encoder, for good. These are written without asking Elixir.
static PLAIN: LazyLock<RwLock<FxHashSet<ErlNifTerm>>> = LazyLock::new(RwLock::default);

/// The structs that this walk has found, and how Elixir has encoded those that earlier walks found.
pub struct Structs<'a> {
    /// Found for the first time.
    pub met: Vec<Term<'a>>,
    /// How many encoded values the walk is inside.
    pub depth: usize,
    pairs: Option<Term<'a>>,
    /// The pairs, read when the first struct is met.
    encoded: Option<FxHashMap<Term<'a>, Encoded<'a>>>,
}

impl<'a> Structs<'a> {
    pub fn new(pairs: Option<Term<'a>>) -> Self {
        Structs { met: Vec::new(), depth: 0, pairs, encoded: None }
    }
}

#[derive(Clone, Copy)]
enum Encoded<'a> {
    /// There is no encoder of the user.
    Default,
    /// Written as a dict with `__struct__`.
    Plain(Term<'a>),
    /// Written instead of the struct.
    Value(Term<'a>),
    /// A stream: the number of its source, and how many items may be sent.
    Source(Term<'a>, i64),
}

fn read_pairs(pairs: Term<'_>) -> Option<FxHashMap<Term<'_>, Encoded<'_>>> {
    let pairs: Vec<(Term<'_>, (Atom, Term<'_>))> = pairs.decode().ok()?;
    let mut read = FxHashMap::default();
    for (key, (tag, value)) in pairs {
        let encoded = if tag == atoms::default() {
            Encoded::Default
        } else if tag == atoms::plain() {
            Encoded::Plain(value)
        } else if tag == atoms::source() {
            let (source, demand, _feeder): (Term<'_>, i64, Term<'_>) = value.decode().ok()?;
            Encoded::Source(source, demand)
        } else {
            Encoded::Value(value)
        };
        read.insert(key, encoded);
    }
    Some(read)
}

fn is_plain(module: Atom) -> bool {
    PLAIN.read().unwrap_or_else(PoisonError::into_inner).contains(&module.as_c_arg())
}

/// From now on, structs of this module are written without asking Elixir.
#[rustler::nif]
fn struct_plain(module: Atom) -> Atom {
    PLAIN.write().unwrap_or_else(PoisonError::into_inner).insert(module.as_c_arg());
    atoms::ok()
}

impl<'a> Walk<'a> {
    /// Writes a map with the key `__struct__`.
    pub(super) fn structure(&mut self, term: Term<'a>, module: Term<'a>) -> Result<(), WalkError<'a>> {
        let Ok(module) = Atom::from_term(module) else { return self.map(term) };
        if module == atoms::map_set() {
            self.map_set(term)
        } else if module == atoms::serde_binary() {
            self.serde_binary(term)
        } else if module == atoms::serde_float() {
            self.serde_float(term)
        } else if module == atoms::serde_term() {
            self.opaque(field(term, atoms::term())?);
            Ok(())
        } else if module == atoms::serde_object() {
            self.serde_object(term)
        } else if module == atoms::serde_callback() {
            self.serde_callback(term)
        } else if module == atoms::serde_stream() {
            self.serde_stream(term)
        } else if module == atoms::object_handle() {
            self.object(term)
        } else if is_plain(module) && !array::is_elsewhere(term, module) {
            self.default(term, module)
        } else {
            self.encodable(term, module)
        }
    }

    /// Writes a struct that has no encoder of the user.
    fn default(&mut self, term: Term<'a>, module: Atom) -> Result<(), WalkError<'a>> {
        let native = self.array(term, module)?
            || self.frame(term, module)?
            || (self.options.native && self.native(term, module)?);
        if native { Ok(()) } else { self.map(term) }
    }

    /// How Elixir has encoded a struct that an earlier walk found. The key is the struct itself, or the reference of
    /// a stream.
    fn encoded(&mut self, key: Term<'a>) -> Result<Option<Encoded<'a>>, WalkError<'a>> {
        if self.structs.encoded.is_none()
            && let Some(pairs) = self.structs.pairs
        {
            self.structs.encoded = Some(read_pairs(pairs).ok_or(WalkError::BadTerm(pairs))?);
        }
        Ok(self.structs.encoded.as_ref().and_then(|encoded| encoded.get(&key)).copied())
    }

    /// Writes a struct that may have an encoder: as Elixir has encoded it, or, if no earlier walk found it, as a
    /// placeholder.
    fn encodable(&mut self, term: Term<'a>, module: Atom) -> Result<(), WalkError<'a>> {
        match self.encoded(term)? {
            Some(Encoded::Default) => self.default(term, module),
            Some(Encoded::Plain(term)) => self.map(term),
            Some(Encoded::Value(value)) => {
                self.structs.depth += 1;
                if self.structs.depth > DEEPEST {
                    return Err(WalkError::BadTerm(term));
                }
                // The next step writes it. A recursive call here would let a chain of encoders overflow the thread's
                // stack.
                self.stack.push(Container::Encoded { value: Some(value) });
                Ok(())
            }
            Some(Encoded::Source(..)) => Err(WalkError::BadTerm(term)),
            None => {
                self.structs.met.push(term);
                self.pickle.none();
                Ok(())
            }
        }
    }

    /// Writes a stream, for which Elixir opens a source. It is found by its reference, because the struct may be of
    /// any size.
    fn serde_stream(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        match self.encoded(field(term, atoms::reference())?)? {
            Some(Encoded::Source(source, demand)) => {
                if !self.recall(source) {
                    let number = source.decode().map_err(|_| WalkError::BadTerm(source))?;
                    self.pickle.global(Global::Stream);
                    self.pickle.arguments_begin();
                    self.pickle.int(number);
                    self.pickle.int(demand);
                    self.pickle.arguments_end();
                    self.keep(source);
                }
            }
            _ => {
                self.structs.met.push(term);
                self.pickle.none();
            }
        }
        Ok(())
    }

    fn map_set(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let members = MapIterator::new(field(term, atoms::map())?).ok_or(WalkError::BadTerm(term))?;
        let frozen = self.options.frozen;
        if frozen {
            self.pickle.frozenset_begin()
        } else {
            self.pickle.set_begin()
        }
        self.stack.push(Container::Set { members, index: 0, frozen, keys: Keys::default() });
        Ok(())
    }

    fn serde_binary(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let binary_as = Atom::from_term(field(term, atoms::as_())?)
            .ok()
            .and_then(options::binary_as)
            .ok_or(WalkError::BadTerm(term))?;
        self.binary(field(term, atoms::data())?, binary_as)
    }

    fn serde_float(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let value = field(term, atoms::value())?;
        let Ok(name) = Atom::from_term(value) else { return self.float(value) };
        let special = if name == atoms::inf() {
            f64::INFINITY
        } else if name == atoms::negative_inf() {
            f64::NEG_INFINITY
        } else if name == atoms::nan() {
            f64::NAN
        } else {
            return Err(WalkError::BadTerm(term));
        };
        self.pickle.float(special);
        Ok(())
    }

    /// Writes a handle: in its interpreter, it is the object itself.
    fn object(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let interpreter = field(term, atoms::interpreter())?;
        if !interpreter.is_pid() {
            return Err(WalkError::BadTerm(term));
        }
        if interpreter.decode().ok() != Some(self.interpreter) {
            return Err(WalkError::Foreign(term));
        }
        let id = field(term, atoms::id())?.decode::<i64>().map_err(|_| WalkError::BadTerm(term))?;
        match handle::access(field(term, atoms::handle())?, self.interpreter, id.cast_unsigned()) {
            Access::Open => self.pickle.call(Global::Object, |pickle| pickle.int(id)),
            Access::Released => return Err(WalkError::Released(term)),
            Access::Wrong => return Err(WalkError::BadTerm(term)),
        }
        Ok(())
    }

    fn serde_object(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let module = text(field(term, atoms::module())?).ok_or(WalkError::BadTerm(term))?;
        let class = text(field(term, atoms::class())?).ok_or(WalkError::BadTerm(term))?;
        self.pickle.global_named(module, class);
        self.pickle.arguments_begin();
        let args = field(term, atoms::args())?;
        self.stack.push(Container::Arguments { rest: args, whole: term });
        Ok(())
    }

    fn serde_callback(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let function = field(term, atoms::function())?;
        if function.get_type() != TermType::Fun {
            return Err(WalkError::BadTerm(term));
        }
        self.function(Global::Callback, function);
        Ok(())
    }
}

pub(super) fn field<'a>(term: Term<'a>, name: Atom) -> Result<Term<'a>, WalkError<'a>> {
    term.map_get(name).map_err(|_| WalkError::BadTerm(term))
}

fn text(term: Term<'_>) -> Option<&str> {
    std::str::from_utf8(Binary::from_term(term).ok()?.as_slice()).ok()
}
