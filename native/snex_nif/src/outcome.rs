//! What a NIF that submits a frame answers.

use crate::atoms;
use crate::down::Down;
use crate::walk::WalkError;
use rustler::{Encoder, Env, Term};
use snex_core::pending::Refused;

/// Why a frame was not submitted, or its request's number.
pub enum Outcome<'a> {
    /// Submitted, as this request.
    Request(u64),
    /// Submitted, and there will be no answer.
    Submitted,
    /// Submitted items of a source, in a frame of so many bytes.
    Fed(usize),
    /// There is no interpreter of that pid.
    NoProcess,
    /// The interpreter is there but has not started; `GenServer.call` waits for it.
    Starting,
    /// The interpreter has gone down, like this.
    Down(Down),
    /// There are as many requests as there may be: so many.
    Overloaded(usize),
    /// Too much is queued; a message for this request will tell when to try again.
    Full(u64),
    /// To be tried again with what Elixir makes of these.
    Structs(Vec<Term<'a>>),
    /// A variable's name that is no string.
    BadKey(Term<'a>),
    /// A term that cannot be written.
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
