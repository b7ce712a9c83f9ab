//! Answers to what Python called.

use crate::options::CallOptions;
use crate::outcome::Outcome;
use crate::request;
use crate::walk::{Scheduler, Stop, Walk};
use rustler::{Binary, Encoder, Env, LocalPid, NifMap, Term};
use snex_core::frame::Kind;
use snex_core::pickle::{BinaryAs, Global};

/// How a function failed.
#[derive(NifMap)]
#[rustler(decode)]
struct Failure<'a> {
    /// `"error"`, `"exit"` or `"throw"`
    kind: Binary<'a>,
    /// The reason, in external term format.
    reason: Binary<'a>,
    message: Binary<'a>,
    stacktrace: Vec<Binary<'a>>,
}

/// Submits what a function returned: `ok`, or why not.
#[rustler::nif]
fn call_result<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Term<'a>,
    call: u64,
    value: Term<'a>,
    options: CallOptions,
) -> Term<'a> {
    submit(env, interpreter, reference, Kind::CallResult, call, options, Scheduler::Normal, |walk| {
        walk.value(value)
    })
    .encode(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn call_result_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Term<'a>,
    call: u64,
    value: Term<'a>,
    options: CallOptions,
) -> Term<'a> {
    submit(env, interpreter, reference, Kind::CallResult, call, options, Scheduler::Dirty, |walk| {
        walk.value(value)
    })
    .encode(env)
}

/// Submits how a function failed: `ok`, or why not.
#[rustler::nif]
fn call_error<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Term<'a>,
    call: u64,
    failure: Failure<'a>,
    options: CallOptions,
) -> Term<'a> {
    let outcome =
        submit(env, interpreter, reference, Kind::CallError, call, options, Scheduler::Normal, |walk| {
            let pickle = &mut walk.pickle;
            pickle.dict_begin();
            pickle.str("kind");
            pickle.binary(failure.kind.as_slice(), BinaryAs::Str);
            pickle.str("reason");
            pickle.call(Global::Term, |pickle| pickle.binary(failure.reason.as_slice(), BinaryAs::Bytes));
            pickle.str("message");
            pickle.binary(failure.message.as_slice(), BinaryAs::Str);
            pickle.str("stacktrace");
            pickle.list_begin();
            for (index, line) in failure.stacktrace.iter().enumerate() {
                pickle.list_item(index);
                pickle.binary(line.as_slice(), BinaryAs::Str);
            }
            pickle.list_end();
            pickle.dict_end();
            Ok(())
        });
    outcome.encode(env)
}

fn submit<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Term<'a>,
    kind: Kind,
    call: u64,
    options: CallOptions,
    scheduler: Scheduler,
    write: impl FnOnce(&mut Walk<'a>) -> Result<(), Stop<'a>>,
) -> Outcome<'a> {
    let interpreter = match request::answerable(env, interpreter, reference) {
        Ok(interpreter) => interpreter,
        Err(outcome) => return outcome,
    };
    let mut walk = Walk::new(options.over(interpreter.worker.sink.encoding), scheduler);
    match write(&mut walk) {
        Ok(()) => {
            // Nobody waits for the answer of an interpreter that is gone.
            interpreter.worker.submit(walk.pickle.into_frame(kind, call));
            Outcome::Submitted
        }
        Err(stop) => stop.into(),
    }
}
