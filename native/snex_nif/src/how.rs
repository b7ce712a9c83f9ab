//! The fields that requests for code and for calls have in common: where and how the request runs, and for whom.

use crate::atoms;
use crate::interpreter::Interpreter;
use crate::options::choose;
use crate::pool::Reservation;
use crate::walk::Walk;
use rustler::{Atom, Binary, NifMap, ResourceArc, Term};
use snex_core::clock;
use snex_core::frame;
use snex_core::pickle::BinaryAs;

/// Per millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// Where and how a request runs, and for whom.
#[derive(NifMap)]
#[rustler(decode)]
pub struct How<'a> {
    /// The number of the environment; `None` for a copy of the root environment.
    pub environment: Option<u64>,
    pub run: Atom,
    pub returns: Atom,
    /// `$callers` of the calling process.
    pub callers: Option<Term<'a>>,
    /// How long the caller still waits, and its whole timeout; both in milliseconds.
    pub time: Option<(u64, u64)>,
    /// The caller's trace context, as a W3C `traceparent` header.
    pub traceparent: Option<Binary<'a>>,
    /// For a stream: how many items may be in flight.
    pub demand: Option<u32>,
    /// The caller's slot, if a pool has chosen the interpreter.
    pub slot: Option<ResourceArc<Reservation>>,
}

/// The flags for where code runs and how its result is returned; `None` if an atom is unknown.
pub fn flags(how: &How<'_>) -> Option<u8> {
    let run = if how.demand.is_some() {
        let run = [(atoms::auto(), 0), (atoms::loop_(), frame::LOOP), (atoms::thread(), frame::THREAD)];
        frame::STREAM | choose(how.run, run)?
    } else {
        choose(how.run, [(atoms::loop_(), 0), (atoms::thread(), frame::THREAD)])?
    };
    let returns = choose(
        how.returns,
        [(atoms::value(), 0), (atoms::auto(), frame::AUTO), (atoms::object(), frame::OBJECT)],
    )?;
    Some(run | returns)
}

/// The deadline, by the monotonic clock that Python shares, and the whole timeout; both in nanoseconds.
fn time(interpreter: &Interpreter, time: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (left, timeout) = time.filter(|_| interpreter.worker.sink.shares_clock)?;
    let until = clock::monotonic()?.saturating_add(left.saturating_mul(NANOSECONDS));
    Some((until, timeout.saturating_mul(NANOSECONDS)))
}

/// The last fields of a request's body. Trailing fields without a value are left out.
pub struct Rest<'a> {
    time: Option<(u64, u64)>,
    traceparent: Option<Binary<'a>>,
    demand: Option<u32>,
}

impl<'a> Rest<'a> {
    pub fn new(interpreter: &Interpreter, how: &How<'a>) -> Self {
        Rest { time: time(interpreter, how.time), traceparent: how.traceparent, demand: how.demand }
    }

    pub fn len(&self) -> usize {
        if self.demand.is_some() {
            3
        } else if self.traceparent.is_some() {
            2
        } else {
            usize::from(self.time.is_some())
        }
    }

    pub fn write(&self, walk: &mut Walk<'_>) {
        if let Some((until, timeout)) = self.time {
            walk.pickle.tuple_begin(2);
            walk.pickle.int(i64::try_from(until).unwrap_or(i64::MAX));
            walk.pickle.int(i64::try_from(timeout).unwrap_or(i64::MAX));
            walk.pickle.tuple_end(2);
        } else if self.len() > 0 {
            walk.pickle.none();
        }
        if let Some(traceparent) = &self.traceparent {
            walk.pickle.binary(traceparent.as_slice(), BinaryAs::Str);
        } else if self.demand.is_some() {
            walk.pickle.none();
        }
        if let Some(demand) = self.demand {
            walk.pickle.int(i64::from(demand));
        }
    }
}
