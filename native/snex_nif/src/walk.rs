//! Writes Erlang terms as Pickle 5, walking them once.
//!
//! The walk has a stack of its own, so only memory limits the depth of terms. It does not yield: on a normal
//! scheduler, it only gets terms that `Snex.Serde.Weight` has found light. It could not weigh them itself, because
//! the VM has to copy bitstrings, large integers, and binaries that do not begin at a byte, before a NIF can read
//! them.

mod array;
mod frame;
mod keys;
mod native;
mod scalar;
mod structs;
mod tuple;

use crate::atoms;
use crate::binary_ref::BinaryRef;
use crate::options::Options;
use keys::Keys;
use rustc_hash::FxHashMap;
use rustler::sys::ErlNifTerm;
use rustler::types::map::MapIterator;
use rustler::{Binary, LocalPid, Term, TermType};
use snex_core::pickle::{BUFFER_THRESHOLD, BinaryAs, Checkpoint, Global, MemoIndex, Pickle};
use snex_core::signing::Signer;
use std::sync::Arc;
use structs::Structs;

/// Why a walk ended early.
pub enum WalkError<'a> {
    /// Elixir has to encode these structs.
    Structs(Vec<Term<'a>>),
    /// The name of this variable is not a string.
    BadKey(Term<'a>),
    /// The term cannot be read, or is one of Snex's own structs with invalid fields.
    BadTerm(Term<'a>),
    /// This object belongs to another interpreter.
    Foreign(Term<'a>),
    /// This object was released.
    Released(Term<'a>),
}

/// A walk under way.
pub struct Walk<'a> {
    /// What has been written.
    pub pickle: Pickle<BinaryRef>,
    options: Options,
    /// Signs functions, if `:allow` restricts what Python may call.
    signer: Option<Arc<Signer>>,
    /// The interpreter that the terms are for. Only its objects may be among them.
    interpreter: LocalPid,
    stack: Vec<Container<'a>>,
    /// At least this many of the outermost containers on the stack are not improper lists.
    proper: usize,
    /// Atoms and streams that have been written: each is made once per pickle. The key is the atom, or the number of
    /// the stream's source; neither term is a pointer. The memo also keeps streams alive: one that Python drops is
    /// closed.
    made: FxHashMap<ErlNifTerm, MemoIndex>,
    /// The same, in the order in which they were written.
    made_in_order: Vec<(ErlNifTerm, MemoIndex)>,
    structs: Structs<'a>,
}

/// A container whose members are being written.
enum Container<'a> {
    List {
        whole: Term<'a>,
        rest: Term<'a>,
        index: usize,
        start: Checkpoint,
        met: usize,
    },
    Tuple {
        whole: Term<'a>,
        items: &'a [ErlNifTerm],
        next: usize,
    },
    Map {
        pairs: MapIterator<'a>,
        value: Option<Term<'a>>,
        index: usize,
        keys: Keys,
    },
    Set {
        members: MapIterator<'a>,
        index: usize,
        frozen: bool,
        keys: Keys,
    },
    Arguments {
        rest: Term<'a>,
        whole: Term<'a>,
    },
    /// The value that Elixir has encoded a struct to.
    Encoded {
        value: Option<Term<'a>>,
    },
}

impl<'a> Walk<'a> {
    /// `encoded`: the structs that earlier walks over the same terms found; see
    /// [`CallOptions::encoded`](crate::options::CallOptions).
    pub fn new(
        options: Options,
        encoded: Option<Term<'a>>,
        interpreter: LocalPid,
        signer: Option<Arc<Signer>>,
    ) -> Self {
        Walk {
            pickle: Pickle::new(),
            options,
            interpreter,
            signer,
            stack: Vec::new(),
            proper: 0,
            made: FxHashMap::default(),
            made_in_order: Vec::new(),
            structs: Structs::new(encoded),
        }
    }

    /// Called after the last term. Returns an error if Elixir has to encode structs first.
    pub fn complete(&mut self) -> Result<(), WalkError<'a>> {
        let met = std::mem::take(&mut self.structs.met);
        if met.is_empty() { Ok(()) } else { Err(WalkError::Structs(met)) }
    }

    /// Writes a map of variables. Its keys are names, and become `str` whatever the options are.
    pub fn vars(&mut self, vars: Term<'a>) -> Result<(), WalkError<'a>> {
        let pairs = MapIterator::new(vars).ok_or(WalkError::BadTerm(vars))?;
        self.pickle.dict_begin();
        for (index, (key, value)) in pairs.enumerate() {
            let name = Binary::from_term(key).map_err(|_| WalkError::BadKey(key))?;
            let name = std::str::from_utf8(name.as_slice()).map_err(|_| WalkError::BadKey(key))?;
            self.pickle.dict_item(index);
            self.pickle.str(name);
            self.value(value)?;
        }
        self.pickle.dict_end();
        Ok(())
    }

    /// Writes a value of any depth.
    pub fn value(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        self.enter(term)?;
        while !self.stack.is_empty() {
            self.step()?;
        }
        Ok(())
    }

    /// Writes a scalar, or begins a container.
    fn enter(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        self.enter_of(term.get_type(), term)
    }

    /// As `enter`, for a term whose type is known.
    fn enter_of(&mut self, kind: TermType, term: Term<'a>) -> Result<(), WalkError<'a>> {
        match kind {
            TermType::Integer => self.integer(term),
            TermType::Atom => self.atom(term),
            TermType::Binary => self.binary(term, self.options.binary_as),
            TermType::Float => self.float(term),
            TermType::List => {
                let start = self.pickle.checkpoint();
                self.pickle.list_begin();
                let met = self.structs.met.len();
                self.stack.push(Container::List { whole: term, rest: term, index: 0, start, met });
                Ok(())
            }
            TermType::Tuple => {
                let items = tuple::items(term).ok_or(WalkError::BadTerm(term))?;
                self.pickle.tuple_begin(items.len());
                self.stack.push(Container::Tuple { whole: term, items, next: 0 });
                Ok(())
            }
            TermType::Map => match term.map_get(atoms::__struct__()) {
                Ok(module) => self.structure(term, module),
                Err(_) => self.map(term),
            },
            TermType::Fun => {
                self.function(Global::Function, term);
                Ok(())
            }
            _ => {
                self.opaque(term);
                Ok(())
            }
        }
    }

    /// Writes or begins the key of a map.
    fn key(&mut self, kind: TermType, key: Term<'a>) -> Result<(), WalkError<'a>> {
        if kind == TermType::Binary
            && self.options.binary_as == BinaryAs::Str
            && let Ok(binary) = Binary::from_term(key)
            && binary.len() < BUFFER_THRESHOLD
            && let Ok(text) = std::str::from_utf8(binary.as_slice())
        {
            self.pickle.key(text);
            return Ok(());
        }
        self.enter_of(kind, key)
    }

    fn map(&mut self, term: Term<'a>) -> Result<(), WalkError<'a>> {
        let pairs = MapIterator::new(term).ok_or(WalkError::BadTerm(term))?;
        self.pickle.dict_begin();
        self.stack.push(Container::Map { pairs, value: None, index: 0, keys: Keys::default() });
        Ok(())
    }

    /// Writes the next member of the innermost container, or ends it.
    fn step(&mut self) -> Result<(), WalkError<'a>> {
        let Some(container) = self.stack.last_mut() else { return Ok(()) };
        match container {
            Container::List { rest, index, .. } => {
                // Variables of their own stay in registers.
                let (mut left, mut at) = (*rest, *index);
                while let Ok((head, tail)) = left.list_get_cell() {
                    left = tail;
                    self.pickle.list_item(at);
                    at += 1;
                    // A short cut: most long lists are lists of numbers.
                    match head.decode::<i64>() {
                        Ok(value) => self.pickle.int(value),
                        Err(_) => {
                            (*rest, *index) = (left, at);
                            return self.enter(head);
                        }
                    }
                }
                *rest = left;
                if left.is_empty_list() {
                    self.pickle.list_end();
                } else {
                    self.improper();
                    return Ok(());
                }
            }
            Container::Tuple { whole, items, next } => match items.get(*next) {
                Some(item) => {
                    *next += 1;
                    let item = tuple::item(*whole, *item);
                    return self.enter(item);
                }
                None => self.pickle.tuple_end(items.len()),
            },
            Container::Map { pairs, value, index, keys } => {
                if let Some(value) = value.take() {
                    return self.enter(value);
                }
                if let Some((key, following)) = pairs.next() {
                    *value = Some(following);
                    self.pickle.dict_item(*index);
                    *index += 1;
                    let kind = key.get_type();
                    keys.add(kind);
                    return self.key(kind, key);
                }
                self.pickle.dict_end();
                if *index > 1 && keys.may_be_equal(&self.options) {
                    self.pickle.distinct(*index);
                }
            }
            Container::Set { members, index, frozen, keys } => {
                if let Some((member, _)) = members.next() {
                    if !*frozen {
                        self.pickle.set_item(*index);
                    }
                    *index += 1;
                    let kind = member.get_type();
                    keys.add(kind);
                    return self.enter_of(kind, member);
                }
                if *frozen {
                    self.pickle.frozenset_end()
                } else {
                    self.pickle.set_end()
                }
                if *index > 1 && keys.may_be_equal(&self.options) {
                    self.pickle.distinct(*index);
                }
            }
            Container::Arguments { rest, whole } => match rest.list_get_cell() {
                Ok((head, tail)) => {
                    *rest = tail;
                    return self.enter(head);
                }
                Err(_) if rest.is_empty_list() => self.pickle.arguments_end(),
                Err(_) => return Err(WalkError::BadTerm(*whole)),
            },
            Container::Encoded { value } => {
                if let Some(value) = value.take() {
                    return self.enter(value);
                }
                self.structs.depth -= 1;
            }
        }
        self.stack.pop();
        self.proper = self.proper.min(self.stack.len());
        Ok(())
    }

    /// The innermost list turns out to be improper. Python has no such lists, so it becomes an opaque term. If it is
    /// nested in other improper lists, the outermost of these becomes one opaque term: otherwise, each would be
    /// encoded again with all that it contains.
    fn improper(&mut self) {
        let innermost = self.stack.len() - 1;
        let mut at = self.proper;
        while at < innermost {
            if let Some(Container::List { rest, .. }) = self.stack.get(at)
                && !is_proper(*rest)
            {
                break;
            }
            at += 1;
        }
        self.proper = at;
        let mut outermost = None;
        for container in self.stack.drain(at..) {
            match container {
                Container::List { whole, start, met, .. } => {
                    outermost.get_or_insert((whole, start, met));
                }
                Container::Encoded { .. } => self.structs.depth -= 1,
                _ => (),
            }
        }
        let Some((whole, start, met)) = outermost else { return };
        self.rewind(start);
        self.structs.met.truncate(met);
        self.opaque(whole)
    }

    /// Writes a term that Python can only pass back.
    fn opaque(&mut self, term: Term<'a>) {
        let etf = term.to_binary();
        self.pickle.call(Global::Term, |pickle| pickle.binary(&etf, BinaryAs::Bytes));
    }

    /// Writes a function, or a callback that calls it.
    fn function(&mut self, kind: Global, term: Term<'a>) {
        let etf = term.to_binary();
        self.pickle.global(kind);
        self.pickle.arguments_begin();
        self.pickle.binary(&etf, BinaryAs::Bytes);
        if let Some(signer) = &self.signer {
            self.pickle.binary(&signer.sign(&etf), BinaryAs::Bytes);
        }
        self.pickle.arguments_end();
    }

    fn rewind(&mut self, checkpoint: Checkpoint) {
        self.pickle.rewind(checkpoint);
        while let Some((made, _)) = self.made_in_order.pop_if(|(_, index)| *index >= checkpoint.memo()) {
            self.made.remove(&made);
        }
    }

    /// Writes what was made for `term` before; returns false if nothing was.
    fn recall(&mut self, term: Term<'a>) -> bool {
        let index = self.made.get(&term.as_c_arg());
        if let Some(index) = index {
            self.pickle.recall(*index);
        }
        index.is_some()
    }

    /// Remembers that the value on top of Python's stack was made for `term`.
    fn keep(&mut self, term: Term<'a>) {
        let index = self.pickle.memoize();
        self.made.insert(term.as_c_arg(), index);
        self.made_in_order.push((term.as_c_arg(), index));
    }
}

fn is_proper(mut list: Term<'_>) -> bool {
    while let Ok((_, tail)) = list.list_get_cell() {
        list = tail;
    }
    list.is_empty_list()
}
