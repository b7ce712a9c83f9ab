//! What a NIF that submits a frame returns.

use crate::atoms;
use crate::down::Down;
use crate::walk::WalkError;
use rustler::{Encoder, Env, Term};
use snex_core::pending::Refused;

/// Whether a frame was submitted, or why not.
pub enum Outcome<'a> {
    /// Submitted as a request with this number.
    Request(u64),
    /// Submitted; no answer will come.
    Submitted,
    /// Submitted items of a source; the size of the frame in bytes.
    Fed(usize),
    /// No interpreter has that pid.
    NoProcess,
    /// The interpreter is still starting. The caller can wait with `GenServer.call`.
    Starting,
    /// The interpreter is down.
    Down(Down),
    /// As many requests are in flight as allowed: this many.
    Overloaded(usize),
    /// Too much is queued. A message for the request with this number tells the caller when to try again.
    Full(u64),
    /// Elixir has to encode these structs, and try again with the results.
    Structs(Vec<Term<'a>>),
    /// The name of a variable is not a string.
    BadKey(Term<'a>),
    /// A term that cannot be encoded.
    BadTerm(Term<'a>),
    /// An object of another interpreter.
    Foreign(Term<'a>),
    /// An object that was released.
    Released(Term<'a>),
}

impl From<Refused<Down>> for Outcome<'_> {
    fn from(refused: Refused<Down>) -> Self {
        match refused {
            Refused::Down(down) => Outcome::Down(down),
            Refused::TooMany(limit) => Outcome::Overloaded(limit),
        }
    }
}

impl<'a> From<WalkError<'a>> for Outcome<'a> {
    fn from(stop: WalkError<'a>) -> Self {
        match stop {
            WalkError::Structs(structs) => Outcome::Structs(structs),
            WalkError::BadKey(key) => Outcome::BadKey(key),
            WalkError::BadTerm(term) => Outcome::BadTerm(term),
            WalkError::Foreign(object) => Outcome::Foreign(object),
            WalkError::Released(object) => Outcome::Released(object),
        }
    }
}

impl Encoder for Outcome<'_> {
    fn encode<'b>(&self, env: Env<'b>) -> Term<'b> {
        match self {
            Outcome::Request(id) => (atoms::ok(), id).encode(env),
            Outcome::Submitted => atoms::ok().encode(env),
            Outcome::Fed(bytes) => (atoms::ok(), *bytes as u64).encode(env),
            Outcome::NoProcess => atoms::noproc().encode(env),
            Outcome::Starting => atoms::starting().encode(env),
            Outcome::Down(down) => (atoms::down(), down).encode(env),
            Outcome::Overloaded(limit) => (atoms::overloaded(), *limit as u64).encode(env),
            Outcome::Full(id) => (atoms::full(), id).encode(env),
            Outcome::Structs(structs) => (atoms::structs(), structs.as_slice()).encode(env),
            Outcome::BadKey(key) => (atoms::bad_key(), key).encode(env),
            Outcome::BadTerm(term) => (atoms::error(), term).encode(env),
            Outcome::Foreign(object) => (atoms::foreign(), object).encode(env),
            Outcome::Released(object) => (atoms::released(), object).encode(env),
        }
    }
}
