//! Handles of environments and objects.
//!
//! A *handle* is a resource: one count that Python holds for the VM (`snex_core::handles` has the rules). On another node a
//! *proxy* stands for it, while the handle itself stays here with `Snex.Remote.Tracker`.

use crate::atoms;
use crate::binary_ref::BinaryRef;
use crate::registry;
use crate::resource_count::{Counted, CountedKind};
use crate::runtime;
use crate::shared::Shared;
use rustler::env::{OwnedEnv, SavedTerm};
use rustler::{Atom, Decoder, Encoder, Env, Error, LocalPid, NifResult, Resource, ResourceArc, Term};
use snex_core::frame::{self, Frame, Header};
use snex_core::handles::{Count, Drops, Key, Kind};
use snex_core::worker::Worker;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, Weak};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// The number of the latest environment of this VM: no two have the same, whichever interpreters they belong to.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The key of an environment that is about to be made.
pub fn next_environment() -> Key {
    Key { kind: Kind::Environment, id: LATEST.fetch_add(1, Ordering::Relaxed) + 1 }
}

/// What a handle is of, in Elixir.
#[derive(Clone, Copy)]
struct OfKind(Kind);

impl<'a> Decoder<'a> for OfKind {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let kind: Atom = term.decode()?;
        if kind == atoms::environment() {
            Ok(OfKind(Kind::Environment))
        } else if kind == atoms::object() {
            Ok(OfKind(Kind::Object))
        } else {
            Err(Error::BadArg)
        }
    }
}

/// One count that Python holds. Dropped by the garbage collector, on whichever thread it runs: nothing here blocks.
pub struct Handle {
    count: Count,
    /// The process of its interpreter.
    interpreter: LocalPid,
    drops: UnboundedSender<Key>,
    _counted: Counted,
}

impl Resource for Handle {}

impl Handle {
    /// A handle that Python has counted, or counts before it hears of its drop.
    pub fn received(key: Key, shared: &Shared) -> Self {
        let kind = match key.kind {
            Kind::Environment => CountedKind::Environment,
            Kind::Object => CountedKind::Object,
        };
        Handle {
            count: shared.alive.receive(key),
            interpreter: shared.owner,
            drops: shared.drops.clone(),
            _counted: Counted::new(kind),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.count.is_released() {
            // Fails when the interpreter is gone, and with it all that Python had.
            let _ = self.drops.send(self.count.key());
        }
    }
}

/// What may be reached through a term that should be the handle of an object.
pub enum Access {
    Open,
    /// It was released.
    Released,
    /// It is of something else, or no handle at all.
    Wrong,
}

/// What may be reached through `handle` of the object `id` of an interpreter. A reference that is no resource here, that of another
/// node or of a resource which is gone, says nothing.
pub fn access(handle: Term<'_>, interpreter: LocalPid, id: u64) -> Access {
    let Ok(own) = handle.decode::<ResourceArc<Handle>>() else {
        let is_open = handle.is_ref() && handle.decode::<ResourceArc<Proxy>>().is_err();
        return if is_open { Access::Open } else { Access::Wrong };
    };
    if own.count.key() != (Key { kind: Kind::Object, id }) || own.interpreter != interpreter {
        Access::Wrong
    } else if own.count.is_released() {
        Access::Released
    } else {
        Access::Open
    }
}

/// A message to this node's tracker: `{snex_handle_dropped, holder, key}`.
struct Dropped {
    tracker: LocalPid,
    env: OwnedEnv,
    message: SavedTerm,
}

/// Stands for a handle that another node's tracker holds under a key. This node's tracker is told when it is dropped or released,
/// whichever comes first.
pub struct Proxy {
    dropped: Mutex<Option<Dropped>>,
    _counted: Counted,
}

impl Resource for Proxy {}

impl Proxy {
    fn give_back(&self) {
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(dropped) = dropped {
            // Fails only when the VM goes down.
            let _ = DROPPED_PROXIES.send(dropped);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Where the messages of proxies go: to a task that sends them, for the thread that drops a proxy may be a scheduler's.
static DROPPED_PROXIES: LazyLock<UnboundedSender<Dropped>> = LazyLock::new(|| {
    let (drops, mut dropped) = mpsc::unbounded_channel::<Dropped>();
    if let Some(runtime) = runtime::handle() {
        runtime.spawn(async move {
            while let Some(Dropped { tracker, mut env, message }) = dropped.recv().await {
                // A tracker that is gone needs no message: the other one has dropped all that it held for it.
                let _ = env.send_and_clear(&tracker, |env| message.load(env));
            }
        });
    }
    drops
});

/// Makes a proxy for the handle that `holder`, another node's tracker, has under the key `{ticket, number}`. `tracker` is this
/// node's.
#[rustler::nif]
fn handle_proxy<'a>(
    tracker: LocalPid,
    holder: Term<'a>,
    ticket: Term<'a>,
    number: u64,
) -> NifResult<ResourceArc<Proxy>> {
    // Nothing else: a copy of them takes no time.
    if !holder.is_pid() || !ticket.is_ref() {
        return Err(Error::BadArg);
    }
    let env = OwnedEnv::new();
    let message = env.run(|own| {
        let key = (ticket.in_env(own), number);
        env.save((atoms::snex_handle_dropped(), holder.in_env(own), key))
    });
    let dropped = Mutex::new(Some(Dropped { tracker, env, message }));
    Ok(ResourceArc::new(Proxy { dropped, _counted: Counted::new(CountedKind::Proxy) }))
}

/// What a proxy tells its node's tracker when it is dropped: `{snex_handle_dropped, holder, key}`. `nil` when it has done so, and for
/// another reference.
#[rustler::nif]
fn handle_held<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
    if !handle.is_ref() {
        return Err(Error::BadArg);
    }
    let Ok(proxy) = handle.decode::<ResourceArc<Proxy>>() else { return Ok(atoms::nil().encode(env)) };
    let dropped = proxy.dropped.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match &*dropped {
        Some(dropped) => dropped.env.run(|own| dropped.message.load(own).in_env(env)),
        None => atoms::nil().encode(env),
    })
}

/// From now on, Python keeps what this is a handle of, if it is still there, until it is destroyed or released.
#[rustler::nif]
fn handle_keep(interpreter: LocalPid, OfKind(kind): OfKind, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.alive.keep(Key { kind, id });
    }
    atoms::ok()
}

/// Has Python forget an environment; `ok` also when there is none. Sent at once, not in a batch: a request that comes after
/// it does not find the environment any more.
#[rustler::nif]
fn handle_destroy(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let key = Key { kind: Kind::Environment, id };
        give_back(&interpreter.worker, key, interpreter.worker.sink.alive.destroy(key));
    }
    atoms::ok()
}

/// Gives back the count of a handle before it is dropped, and what is owed for others that were dropped: nothing keeps it in Python any
/// more but handles that live. `ok` also when it was released before. Sent at once, as above.
///
/// `handle` may also be a proxy, whose handle is then dropped soon, or another reference: that of a resource which is gone, or
/// of another node.
#[rustler::nif]
fn handle_release<'a>(
    handle: Term<'a>,
    interpreter: Term<'a>,
    OfKind(kind): OfKind,
    id: u64,
) -> NifResult<Atom> {
    if !handle.is_ref() || !interpreter.is_pid() {
        return Err(Error::BadArg);
    }
    let key = Key { kind, id };
    let own = handle.decode::<ResourceArc<Handle>>().ok();
    if own.as_ref().is_some_and(|own| own.count.key() != key) {
        return Err(Error::BadArg);
    }
    if let Ok(proxy) = handle.decode::<ResourceArc<Proxy>>() {
        proxy.give_back();
    }
    if let Some(interpreter) = interpreter.decode().ok().and_then(registry::find) {
        let shared = &interpreter.worker.sink;
        if own.as_ref().is_some_and(|own| own.interpreter != shared.owner) {
            return Err(Error::BadArg);
        }
        let count = shared.alive.release(key, own.as_ref().map(|own| &own.count));
        give_back(&interpreter.worker, key, count);
    }
    Ok(atoms::ok())
}

/// Gives the counts of dropped handles back to Python, as many at a time as have come together.
pub async fn give_back_dropped(worker: Weak<Worker<BinaryRef, Shared>>, mut dropped: UnboundedReceiver<Key>) {
    const BATCH: usize = 4096;
    let mut batch = Vec::with_capacity(BATCH);
    let mut drops = Drops::default();
    while dropped.recv_many(&mut batch, BATCH).await > 0 {
        let Some(worker) = worker.upgrade() else { return };
        for key in batch.drain(..) {
            drops.add(key, worker.sink.alive.dropped(key));
        }
        submit(&worker, &mut drops);
    }
}

fn give_back(worker: &Worker<BinaryRef, Shared>, key: Key, count: u64) {
    let mut drops = Drops::default();
    drops.add(key, count);
    submit(worker, &mut drops);
}

fn submit(worker: &Worker<BinaryRef, Shared>, drops: &mut Drops) {
    if let Some(body) = drops.take() {
        // A worker that is gone has forgotten everything.
        worker.submit(Frame::new(Header::new(frame::Kind::Drop, 0), &body));
    }
}
