//! Where and how a request runs, and for whom: what code and calls have in common.

use crate::atoms;
use crate::interpreter::Interpreter;
use crate::options::choose;
use crate::pool::Reservation;
use crate::walk::Walk;
use rustler::{Atom, Binary, NifMap, ResourceArc, Term};
use snex_core::clock;
use snex_core::frame;
use snex_core::pickle::BinaryAs;

/// In a millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// Where and how something runs, and for whom.
#[derive(NifMap)]
#[rustler(decode)]
pub struct How<'a> {
    /// Number of the environment; a copy of the root when there is none.
    pub environment: Option<u64>,
    pub run: Atom,
    pub returns: Atom,
    /// `$callers` of the calling process.
    pub callers: Option<Term<'a>>,
    /// When the caller gives up: in so many milliseconds, of so many that it had at first.
    pub time: Option<(u64, u64)>,
    /// The caller's span.
    pub traceparent: Option<Binary<'a>>,
    /// How many items of the result may be in flight, if it is iterated.
    pub demand: Option<u32>,
    /// The caller's slot, if a pool has chosen the interpreter.
    pub slot: Option<ResourceArc<Reservation>>,
}

/// The flags that say where code runs, and how its result is returned.
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

/// Until when, by the clock that Python shares, and for how long in all; in nanoseconds.
fn time(interpreter: &Interpreter, time: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (left, timeout) = time.filter(|_| interpreter.worker.sink.shares_clock)?;
    let until = clock::monotonic()?.saturating_add(left.saturating_mul(NANOSECONDS));
    Some((until, timeout.saturating_mul(NANOSECONDS)))
}

/// The last fields of a request, which may be left out.
pub struct Rest<'a> {
    time: Option<(u64, u64)>,
    traceparent: Option<Binary<'a>>,
    demand: Option<u32>,
}

impl<'a> Rest<'a> {
    /// Those of a request to this interpreter.
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
