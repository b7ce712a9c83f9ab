//! Answers to calls from Python.

use crate::options::CallOptions;
use crate::outcome::Outcome;
use crate::request::RequestContext;
use crate::walk::{Walk, WalkError};
use rustler::{Binary, Encoder, Env, LocalPid, NifMap, Reference, Term};
use snex_core::frame::{Header, Kind};
use snex_core::pickle::{BinaryAs, Global, Pickle};

/// How a function failed.
#[derive(NifMap)]
#[rustler(decode)]
pub struct Failure<'a> {
    /// `"error"`, `"exit"` or `"throw"`
    kind: Binary<'a>,
    /// The reason, in external term format.
    reason: Binary<'a>,
    message: Binary<'a>,
    stacktrace: Vec<Binary<'a>>,
}

impl Failure<'_> {
    /// Writes the failure as a dict.
    pub fn write<B: AsRef<[u8]>>(&self, pickle: &mut Pickle<B>) {
        let lines = self.stacktrace.iter().map(Binary::as_slice);
        write_failure(pickle, &self.kind, &self.reason, &self.message, lines);
    }
}

/// Writes a dict with the fields of [`Failure`].
pub fn write_failure<'a, B: AsRef<[u8]>>(
    pickle: &mut Pickle<B>,
    kind: &[u8],
    reason: &[u8],
    message: &[u8],
    stacktrace: impl Iterator<Item = &'a [u8]>,
) {
    pickle.dict_begin();
    pickle.str("kind");
    pickle.binary(kind, BinaryAs::Str);
    pickle.str("reason");
    pickle.call(Global::Term, |pickle| pickle.binary(reason, BinaryAs::Bytes));
    pickle.str("message");
    pickle.binary(message, BinaryAs::Str);
    pickle.str("stacktrace");
    pickle.list_begin();
    for (index, line) in stacktrace.enumerate() {
        pickle.list_item(index);
        pickle.binary(line, BinaryAs::Str);
    }
    pickle.list_end();
    pickle.dict_end();
}

/// Submits what a function returned. Returns `ok`, or why the frame was not submitted.
#[rustler::nif]
fn call_result<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    call: u64,
    value: Term<'a>,
    options: CallOptions<'a>,
) -> Term<'a> {
    let caller = RequestContext { env, interpreter, reference, options };
    submit(&caller, Kind::CallResult, call, |walk| walk.value(value))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn call_result_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    call: u64,
    value: Term<'a>,
    options: CallOptions<'a>,
) -> Term<'a> {
    let caller = RequestContext { env, interpreter, reference, options };
    submit(&caller, Kind::CallResult, call, |walk| walk.value(value))
}

/// Submits how a function failed. Returns `ok`, or why the frame was not submitted. On a dirty scheduler, as the
/// message may be of any length.
#[rustler::nif(schedule = "DirtyCpu")]
fn call_error<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    call: u64,
    failure: Failure<'a>,
) -> Term<'a> {
    let options = CallOptions::default();
    let caller = RequestContext { env, interpreter, reference, options };
    submit(&caller, Kind::CallError, call, |walk| {
        failure.write(&mut walk.pickle);
        Ok(())
    })
}

fn submit<'a>(
    caller: &RequestContext<'a>,
    kind: Kind,
    call: u64,
    write: impl FnOnce(&mut Walk<'a>) -> Result<(), WalkError<'a>>,
) -> Term<'a> {
    match caller.post(Header::new(kind, call), write) {
        Ok(_length) => Outcome::Submitted,
        Err(outcome) => outcome,
    }
    .encode(caller.env)
}
