//! Requests: writes a caller's terms into a frame, and remembers the caller until the answer comes.

use crate::atoms;
use crate::caller::Caller;
use crate::cancel;
use crate::handle::{self, Handle};
use crate::how::{How, Rest, flags};
use crate::interpreter::{self, Interpreter};
use crate::options::CallOptions;
use crate::outcome::Outcome;
use crate::pool::Reservation;
use crate::registry;
use crate::walk::{Walk, WalkError};
use rustler::{
    Atom, Binary, Decoder, Encoder, Env, LocalPid, NifMap, NifResult, Reference, ResourceArc, Term,
};
use snex_core::frame::{self, Frame, Header, Kind};
use snex_core::outbox::Submitted;
use snex_core::pickle::BinaryAs;
use std::sync::atomic::Ordering;

/// Code to run.
#[derive(NifMap)]
#[rustler(decode)]
struct Eval<'a> {
    source: Binary<'a>,
    file: Option<Binary<'a>>,
    line: i64,
    vars: Term<'a>,
}

/// A function to call, or an attribute to get.
#[derive(NifMap)]
#[rustler(decode)]
struct Invoke<'a> {
    /// `invoke`, or `map` to call the function with each of several elements.
    kind: Atom,
    /// Where the path begins: the name of a module, an object, or `nil` for a name in the environment.
    root: Term<'a>,
    path: Binary<'a>,
    /// For `invoke`, the list of arguments, or `nil` to call nothing. For `map`, the list of elements, and whether
    /// each element is a list or tuple of arguments.
    args: Term<'a>,
    /// A map whose keys are names.
    kwargs: Term<'a>,
}

/// What to run, and how, decoded from one map.
struct Asked<'a, T> {
    how: How<'a>,
    what: T,
}

impl<'a, T: Decoder<'a>> Decoder<'a> for Asked<'a, T> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        Ok(Asked { how: term.decode()?, what: term.decode()? })
    }
}

/// An environment to make.
#[derive(NifMap)]
#[rustler(decode)]
struct MakeEnv<'a> {
    /// Environments to copy from: number, mode (0 all, 1 only, 2 except), names.
    from: Vec<(u64, i64, Vec<Binary<'a>>)>,
    vars: Term<'a>,
    /// `$callers` of the calling process.
    callers: Option<Term<'a>>,
    /// See [`How::slot`].
    slot: Option<ResourceArc<Reservation>>,
}

/// The caller of a NIF, the interpreter that it addresses, and its encoding options.
pub struct RequestContext<'a> {
    pub env: Env<'a>,
    pub interpreter: LocalPid,
    /// Marks the messages to the caller.
    pub reference: Reference<'a>,
    pub options: CallOptions<'a>,
}

/// Submits code. Returns `{ok, request}`, and later `{reference, result | error | down, _}` is sent to the caller; or
/// returns why the request was not submitted.
#[rustler::nif]
fn request_eval<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    eval: Asked<'a, Eval<'a>>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.eval(&eval).encode(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn request_eval_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    eval: Asked<'a, Eval<'a>>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.eval(&eval).encode(env)
}

/// Submits a call of a function. Returns and sends the same as `request_eval`.
#[rustler::nif]
fn request_invoke<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    invoke: Asked<'a, Invoke<'a>>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.invoke(&invoke).encode(env)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn request_invoke_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    invoke: Asked<'a, Invoke<'a>>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.invoke(&invoke).encode(env)
}

/// Submits an environment to make. Returns `{ok, request, number, handle}`, and later a message is sent; or returns
/// why the request was not submitted.
#[rustler::nif]
fn request_make_env<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    make: MakeEnv<'a>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.make_env(&make)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn request_make_env_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    make: MakeEnv<'a>,
    options: CallOptions<'a>,
) -> Term<'a> {
    RequestContext { env, interpreter, reference, options }.make_env(&make)
}

/// The caller gives up. When this returns, all messages for the request are in its mailbox, and no more will come.
/// With `cancel`, the work in Python is cancelled.
#[rustler::nif]
fn request_forget(interpreter: LocalPid, id: u64, cancel: bool) -> Atom {
    if let Some(interpreter) = registry::known(interpreter)
        && interpreter.worker.sink.pending.forget(id)
        && cancel
    {
        cancel::cancel(&interpreter.worker, id);
    }
    atoms::ok()
}

/// The caller of a stream has taken this many items.
#[rustler::nif]
fn stream_credit(interpreter: LocalPid, id: u64, items: u32) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.submit(Frame::new(Header::new(Kind::Credit, id), &items.to_le_bytes()));
    }
    atoms::ok()
}

impl<'a> RequestContext<'a> {
    fn eval(&self, eval: &Asked<'a, Eval<'a>>) -> Outcome<'a> {
        let Asked { how, what } = eval;
        self.ask(Kind::Eval, how, |walk| {
            walk.pickle.binary(what.source.as_slice(), BinaryAs::Str);
            match &what.file {
                Some(file) => walk.pickle.binary(file.as_slice(), BinaryAs::Str),
                None => walk.pickle.none(),
            }
            walk.pickle.int(what.line);
            walk.vars(what.vars)
        })
    }

    fn invoke(&self, invoke: &Asked<'a, Invoke<'a>>) -> Outcome<'a> {
        let Asked { how, what } = invoke;
        let kind = if what.kind == atoms::map() { Kind::Map } else { Kind::Invoke };
        self.ask(kind, how, |walk| {
            if what.root.is_map() {
                walk.pickle.tuple_begin(1);
                walk.value(what.root)?;
                walk.pickle.tuple_end(1);
            } else if let Ok(module) = Binary::from_term(what.root) {
                walk.pickle.binary(module.as_slice(), BinaryAs::Str);
            } else {
                walk.pickle.none();
            }
            walk.pickle.binary(what.path.as_slice(), BinaryAs::Str);
            walk.value(what.args)?;
            walk.vars(what.kwargs)
        })
    }

    /// Submits a request. Its body is the environment, the four fields that `write` adds, and the fields of [`Rest`].
    fn ask(
        &self,
        kind: Kind,
        how: &How<'a>,
        write: impl FnOnce(&mut Walk<'a>) -> Result<(), WalkError<'a>>,
    ) -> Outcome<'a> {
        let interpreter = match self.started() {
            Ok(interpreter) => interpreter,
            Err(outcome) => return outcome,
        };
        let Some(flags) = flags(how) else {
            return Outcome::BadTerm(how.returns.to_term(self.env));
        };
        let cause = interpreter.worker.sink.answering.cause(self.env.pid(), how.callers);
        let head = Header { flags, cause, ..Header::new(kind, 0) };
        let rest = Rest::new(&interpreter, how);
        self.submit(&interpreter, head, how.slot.as_ref(), |walk| {
            let length = 5 + rest.len();
            walk.pickle.tuple_begin(length);
            match how.environment {
                Some(id) => walk.pickle.int(id as i64),
                None => walk.pickle.none(),
            }
            write(walk)?;
            rest.write(walk);
            walk.pickle.tuple_end(length);
            Ok(())
        })
    }

    fn make_env(&self, make: &MakeEnv<'a>) -> Term<'a> {
        let interpreter = match self.started() {
            Ok(interpreter) => interpreter,
            Err(outcome) => return outcome.encode(self.env),
        };
        let sink = &interpreter.worker.sink;
        let key = handle::next_environment();
        let cause = sink.answering.cause(self.env.pid(), make.callers);
        let head = Header { cause, ..Header::new(Kind::MakeEnv, 0) };
        let outcome = self.submit(&interpreter, head, make.slot.as_ref(), |walk| {
            walk.pickle.tuple_begin(3);
            walk.pickle.int(key.id as i64);
            walk.pickle.list_begin();
            for (index, (from, mode, names)) in make.from.iter().enumerate() {
                walk.pickle.list_item(index);
                walk.pickle.tuple_begin(3);
                walk.pickle.int(*from as i64);
                walk.pickle.int(*mode);
                walk.pickle.list_begin();
                for (index, name) in names.iter().enumerate() {
                    walk.pickle.list_item(index);
                    walk.pickle.binary(name.as_slice(), BinaryAs::Str);
                }
                walk.pickle.list_end();
                walk.pickle.tuple_end(3);
            }
            walk.pickle.list_end();
            walk.vars(make.vars)?;
            walk.pickle.tuple_end(3);
            Ok(())
        });
        match outcome {
            Outcome::Request(request) => {
                let handle = ResourceArc::new(Handle::received(key, sink));
                (atoms::ok(), request, key.id, handle).encode(self.env)
            }
            outcome => outcome.encode(self.env),
        }
    }

    /// The interpreter, if it has started, or if the caller is the process that starts it.
    fn started(&self) -> Result<ResourceArc<Interpreter>, Outcome<'a>> {
        let limit = registry::find(self.interpreter).ok_or(Outcome::NoProcess)?.worker.sink.max_in_flight;
        let interpreter = self.with_room(limit)?;
        let sink = &interpreter.worker.sink;
        if !sink.open.load(Ordering::Acquire) && self.env.pid() != sink.starter {
            return Err(Outcome::Starting);
        }
        Ok(interpreter)
    }

    /// The interpreter, if there is room for a frame now. Otherwise, the caller gets a message once there is. No term
    /// has been walked by then, so waiting callers take no memory. At most `limit` callers wait, for room or for an
    /// answer.
    pub fn with_room(&self, limit: usize) -> Result<ResourceArc<Interpreter>, Outcome<'a>> {
        let interpreter = registry::find(self.interpreter).ok_or(Outcome::NoProcess)?;
        if interpreter.worker.is_full() {
            let sink = &interpreter.worker.sink;
            let id = sink.pending.wait_for_room(self.waiting(), limit)?;
            // If there is room by now, the entry is taken out again. If it is gone already, the caller has its
            // message: that there is room, or that the interpreter is down.
            if interpreter.worker.wait_if_full() || !sink.pending.forget(id) {
                return Err(Outcome::Full(id));
            }
        }
        Ok(interpreter)
    }

    /// A walk over the caller's terms.
    pub fn walk(&self, interpreter: &Interpreter) -> Walk<'a> {
        let sink = &interpreter.worker.sink;
        Walk::new(
            self.options.over(sink.encoding),
            self.options.encoded,
            self.interpreter,
            sink.signer.clone(),
        )
    }

    /// Walks terms and submits a frame that is not a request, if there is room for it. Returns its size in bytes.
    pub fn post(
        &self,
        header: Header,
        write: impl FnOnce(&mut Walk<'a>) -> Result<(), WalkError<'a>>,
    ) -> Result<usize, Outcome<'a>> {
        let interpreter = self.with_room(usize::MAX)?;
        let mut walk = self.walk(&interpreter);
        write(&mut walk)?;
        walk.complete()?;
        let frame = walk.pickle.into_frame(header);
        let length = frame.len();
        interpreter.worker.submit(frame);
        Ok(length)
    }

    fn waiting(&self) -> Caller {
        Caller::new(self.env, self.reference)
    }

    /// Walks the terms, and submits the frame as a new request.
    fn submit(
        &self,
        interpreter: &ResourceArc<Interpreter>,
        head: Header,
        slot: Option<&ResourceArc<Reservation>>,
        write: impl FnOnce(&mut Walk<'a>) -> Result<(), WalkError<'a>>,
    ) -> Outcome<'a> {
        let mut walk = self.walk(interpreter);
        if let Err(stop) = write(&mut walk).and_then(|()| walk.complete()) {
            return stop.into();
        }
        let sink = &interpreter.worker.sink;
        // Added before the frame is submitted, because the answer may come at once.
        let mut waiting = self.waiting();
        waiting.stream = head.flags & frame::STREAM != 0;
        let id = match sink.pending.begin(waiting, sink.max_in_flight) {
            Ok(id) => id,
            Err(refused) => return refused.into(),
        };
        if !interpreter::watch(self.env, interpreter) {
            sink.pending.forget(id);
            return Outcome::NoProcess;
        }
        sink.membership.begin(id, slot);
        // If the pipe is closed, the worker is ending, and its end answers the caller.
        let _: Submitted = interpreter.worker.submit(walk.pickle.into_frame(Header { id, ..head }));
        if sink.pending.submitted(id) {
            cancel::cancel(&interpreter.worker, id);
        }
        Outcome::Request(id)
    }
}
