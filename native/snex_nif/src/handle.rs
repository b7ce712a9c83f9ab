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

/// The number of the latest environment. Numbers are unique in this VM, across all interpreters.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// The key of a new environment.
pub fn next_environment() -> Key {
    Key { kind: Kind::Environment, id: LATEST.fetch_add(1, Ordering::Relaxed) + 1 }
}

/// The kind of a handle, as an atom in Elixir.
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

/// One count that Python holds for the VM. The garbage collector may drop it on any thread, so dropping it does not
/// block.
pub struct Handle {
    count: Count,
    /// The interpreter process.
    interpreter: LocalPid,
    drops: UnboundedSender<Key>,
    _counted: Counted,
}

impl Resource for Handle {}

impl Handle {
    /// A handle whose count Python has, or will have before it is told of the drop.
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
            // Fails if the interpreter is gone, and Python's objects with it.
            let _ = self.drops.send(self.count.key());
        }
    }
}

/// Whether an object may be used through the term in the place of its handle.
pub enum Access {
    Open,
    /// The handle was released.
    Released,
    /// The term is a handle of something else, or not a handle.
    Wrong,
}

/// Whether the object `id` of an interpreter may be used through `handle`. A reference that is not a resource here is
/// accepted: it belongs to another node, or its resource is gone.
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

/// Stands for a handle that another node's tracker holds under a key. When the proxy is dropped or released,
/// whichever comes first, this node's tracker is told.
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

/// A task sends the messages of dropped proxies: the dropping thread may be a scheduler, which must not send this
/// way.
static DROPPED_PROXIES: LazyLock<UnboundedSender<Dropped>> = LazyLock::new(|| {
    let (drops, mut dropped) = mpsc::unbounded_channel::<Dropped>();
    if let Some(runtime) = runtime::handle() {
        runtime.spawn(async move {
            while let Some(Dropped { tracker, mut env, message }) = dropped.recv().await {
                // Fails if this node's tracker is gone. The holder has then dropped all that it held for it.
                let _ = env.send_and_clear(&tracker, |env| message.load(env));
            }
        });
    }
    drops
});

/// Returns a proxy for the handle that `holder`, another node's tracker, has under the key `{ticket, number}`.
/// `tracker` is that of this node.
#[rustler::nif]
fn handle_proxy<'a>(
    tracker: LocalPid,
    holder: Term<'a>,
    ticket: Term<'a>,
    number: u64,
) -> NifResult<ResourceArc<Proxy>> {
    // Anything else could take long to copy.
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

/// Returns the message that a proxy sends to its node's tracker when it is dropped, `{snex_handle_dropped, holder,
/// key}`. Returns `nil` if the proxy has sent it, and for any other reference.
#[rustler::nif]
fn handle_drop_message<'a>(env: Env<'a>, handle: Term<'a>) -> NifResult<Term<'a>> {
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

/// Has an environment or object kept in Python until it is destroyed or released, even without handles. No effect if
/// it is gone.
#[rustler::nif]
fn handle_keep(interpreter: LocalPid, OfKind(kind): OfKind, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        interpreter.worker.sink.alive.keep(Key { kind, id });
    }
    atoms::ok()
}

/// Destroys an environment in Python; returns `ok` also if it does not exist. Sent at once, not in a batch, so that
/// later requests do not find it.
#[rustler::nif]
fn handle_destroy(interpreter: LocalPid, id: u64) -> Atom {
    if let Some(interpreter) = registry::find(interpreter) {
        let key = Key { kind: Kind::Environment, id };
        give_back(&interpreter.worker, key, interpreter.worker.sink.alive.destroy(key));
    }
    atoms::ok()
}

/// Gives back the count of a handle before it is dropped, and the counts owed for handles that were dropped while it
/// was kept. From then on, only other living handles keep it in Python. Returns `ok` also if it was released before.
/// Sent at once, as above.
///
/// `handle` may also be a proxy, whose handle is then dropped soon; or a reference of another node, or of a resource
/// that is gone.
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

/// Gives the counts of dropped handles back to Python, in batches of all that have accumulated.
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
    if let Some(body) = drops.take_body() {
        // No effect on a worker that is gone, and Python with it.
        worker.submit(Frame::new(Header::new(frame::Kind::Drop, 0), &body));
    }
}
