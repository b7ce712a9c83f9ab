//! Sources: Elixir streams that Python iterates. Each source has a process that feeds it, its *feeder*.

use crate::atoms;
use crate::call::{Failure, write_failure};
use crate::interpreter::{self, Interpreter};
use crate::options::CallOptions;
use crate::outcome::Outcome;
use crate::registry;
use crate::request::RequestContext;
use crate::shared::Shared;
use crate::walk::{Walk, WalkError};
use rustler::{Atom, Encoder, Env, Error, LocalPid, NifResult, Reference, Term};
use snex_core::frame::{Frame, Header, Kind};
use snex_core::pickle::Pickle;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tells the number of a source from that of a call in [`Answering`](crate::answering::Answering): requests by the
/// process that makes the items of a source are caused by that source.
const SOURCE: u64 = 1 << 63;

/// The sources of one interpreter that have not ended. Numbers are never reused.
#[derive(Default)]
pub struct Sources(Mutex<Table>);

#[derive(Default)]
struct Table {
    latest: u64,
    feeders: BTreeMap<u64, LocalPid>,
    /// The source of each feeder, which has only one.
    sources: BTreeMap<LocalPid, u64>,
}

impl Sources {
    /// How many sources have not ended.
    pub fn len(&self) -> usize {
        self.table().feeders.len()
    }

    fn insert(&self, feeder: LocalPid) -> u64 {
        let mut table = self.table();
        table.latest += 1;
        let source = table.latest;
        table.feeders.insert(source, feeder);
        table.sources.insert(feeder, source);
        source
    }

    fn remove(&self, source: u64) -> Option<LocalPid> {
        let mut table = self.table();
        let feeder = table.feeders.remove(&source)?;
        table.sources.remove(&feeder);
        Some(feeder)
    }

    /// Removes the source of a feeder that has died.
    fn abandon(&self, feeder: LocalPid) -> Option<u64> {
        let mut table = self.table();
        let source = table.sources.remove(&feeder)?;
        table.feeders.remove(&source);
        Some(source)
    }

    /// The feeder of a source; `None` if the source has ended; an error if it never existed.
    fn feeder(&self, source: u64) -> Result<Option<LocalPid>, String> {
        let table = self.table();
        if source == 0 || source > table.latest {
            return Err(format!("a frame about source {source}, which does not exist"));
        }
        Ok(table.feeders.get(&source).copied())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Python asks for more items: sends `{snex_pull, items}` to the feeder.
    pub fn pull(&self, source: u64, body: &[u8]) -> Result<(), String> {
        let Ok(items) = body.try_into().map(u32::from_le_bytes) else {
            return Err(format!("a PULL with a body of {} bytes", body.len()));
        };
        if let Some(feeder) = self.sources.feeder(source)? {
            self.send(&feeder, (atoms::snex_pull(), items));
        }
        Ok(())
    }

    /// Python needs no more items: sends `snex_close` to the feeder.
    pub fn close(&self, source: u64) -> Result<(), String> {
        if self.sources.feeder(source)?.is_some()
            && let Some(feeder) = self.sources.remove(source)
        {
            self.send(&feeder, atoms::snex_close());
        }
        Ok(())
    }
}

/// Ends the source of a feeder that has died before its end. May be called on any thread.
pub fn abandon(interpreter: &Interpreter, feeder: LocalPid) {
    let sink = &interpreter.worker.sink;
    let Some(source) = sink.sources.abandon(feeder) else { return };
    // The process that makes the items is linked to the feeder, and dies with it.
    sink.answering.forget(source | SOURCE);
    let mut pickle = Pickle::new();
    // The reason is the atom `killed`, in external term format.
    write_failure(&mut pickle, b"exit", b"\x83w\x06killed", b"** (exit) killed", std::iter::empty());
    interpreter.worker.submit(pickle.into_frame(Header::new(Kind::FeedEnd, source)));
}

/// Makes the calling process the feeder of a new source, which gets `{snex_pull, items}` and `snex_close`. Returns
/// `{ok, source, high}`, with the interpreter's high-water mark in bytes, or `noproc`.
#[rustler::nif]
fn source_open(env: Env<'_>, interpreter: LocalPid) -> Term<'_> {
    let Some(interpreter) = registry::find(interpreter) else { return atoms::noproc().encode(env) };
    let sources = &interpreter.worker.sink.sources;
    let source = sources.insert(env.pid());
    if !interpreter::watch(env, &interpreter) {
        sources.remove(source);
        return atoms::noproc().encode(env);
    }
    (atoms::ok(), source, interpreter.worker.sink.high as u64).encode(env)
}

/// Removes a source of which nothing more will be sent.
#[rustler::nif]
fn source_close(interpreter: LocalPid, source: u64) -> Atom {
    if let Some(interpreter) = registry::known(interpreter) {
        interpreter.worker.sink.sources.remove(source);
    }
    atoms::ok()
}

/// The calling process makes the items of a source from now on, until `call_end`.
#[rustler::nif]
fn source_begin(env: Env<'_>, interpreter: LocalPid, source: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.answering.insert(env.pid(), source | SOURCE);
    }
    atoms::ok()
}

/// Submits a list of items. Returns `{ok, bytes}`, or why the frame was not submitted.
#[rustler::nif]
fn source_feed<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    source: u64,
    items: Term<'a>,
    options: CallOptions<'a>,
) -> NifResult<Term<'a>> {
    feed(&RequestContext { env, interpreter, reference, options }, source, items)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn source_feed_dirty<'a>(
    env: Env<'a>,
    interpreter: LocalPid,
    reference: Reference<'a>,
    source: u64,
    items: Term<'a>,
    options: CallOptions<'a>,
) -> NifResult<Term<'a>> {
    feed(&RequestContext { env, interpreter, reference, options }, source, items)
}

/// Submits the end of a source, with `failure` if it has failed. On a dirty scheduler, as `call_error`.
#[rustler::nif(schedule = "DirtyCpu")]
fn source_end(interpreter: LocalPid, source: u64, failure: Option<Failure<'_>>) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let worker = &interpreter.worker;
        if worker.sink.sources.remove(source).is_some() {
            let header = Header::new(Kind::FeedEnd, source);
            let frame = match failure {
                None => Frame::new(header, &[]),
                Some(failure) => {
                    let mut pickle = Pickle::new();
                    failure.write(&mut pickle);
                    pickle.into_frame(header)
                }
            };
            worker.submit(frame);
        }
    }
    atoms::ok()
}

fn feed<'a>(caller: &RequestContext<'a>, source: u64, items: Term<'a>) -> NifResult<Term<'a>> {
    if !items.is_list() {
        return Err(Error::BadArg);
    }
    let outcome = match caller.post(Header::new(Kind::Feed, source), |walk| write(walk, items)) {
        Ok(length) => Outcome::Fed(length),
        Err(outcome) => outcome,
    };
    Ok(outcome.encode(caller.env))
}

/// Writes the items. The list is in Python's memo, and each item is appended to it as soon as it is loaded: if one
/// cannot be loaded, Python still has those before it.
fn write<'a>(walk: &mut Walk<'a>, items: Term<'a>) -> Result<(), WalkError<'a>> {
    walk.pickle.list_grow();
    let mut rest = items;
    while let Ok((item, tail)) = rest.list_get_cell() {
        walk.value(item)?;
        walk.pickle.append();
        rest = tail;
    }
    if !rest.is_empty_list() {
        return Err(WalkError::BadTerm(items));
    }
    Ok(())
}
