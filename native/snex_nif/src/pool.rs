//! Pools of interpreters; see `snex_core::pool`.
//!
//! Four owners of a slot, one after the other: the message that grants it, or the NIF's own frame; a [`Reservation`], which is a term of
//! the caller's; the [`Membership`] of the interpreter, from the submission of the request until Python has ended its work, whoever
//! waits for that; and the thread that tells the caller, or, where the caller of a stream waits for items that came behind, its entry in
//! the table of pending requests. Terms and messages are dropped with the process that has them.

use crate::atoms;
use crate::caller::Caller;
use crate::interpreter::Interpreter;
use crate::kept::Kept;
use crate::registry;
use crate::runtime;
use rustler::env::OwnedEnv;
use rustler::{Atom, Encoder, Env, LocalPid, Monitor, Reference, Resource, ResourceArc, Term};
use snex_core::pool::{self, Host, Refused, Share};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

type Pool = pool::Pool<Surroundings>;
type Member = pool::Member<Surroundings>;
/// The right to run in an interpreter of a pool.
pub type Slot = pool::Slot<Surroundings>;

/// Members that are remembered when they are gone.
const REMEMBERED: usize = 1024;

/// What a pool has around it. Messages are sent by the runtime's threads: schedulers must not send this way.
pub struct Surroundings {
    owner: LocalPid,
    /// Why the pool is closed, as a term in external format. Set before it is.
    closed: OnceLock<Kept>,
    /// How long one may wait, in milliseconds. Those who wait see to it themselves.
    patience: Option<u64>,
}

impl Surroundings {
    fn notify(&self, what: Atom, interpreter: Option<LocalPid>) {
        let owner = self.owner;
        if let Some(runtime) = runtime::handle() {
            runtime.spawn(async move {
                let message = |env| (atoms::snex_pool(), what, interpreter).encode(env);
                let _ = OwnedEnv::new().send_and_clear(&owner, message);
            });
        }
    }
}

impl Host for Surroundings {
    type Interpreter = LocalPid;
    type Waiter = Caller;

    fn wake(&self, pool: &Arc<Pool>) {
        let pool = Arc::clone(pool);
        if let Some(runtime) = runtime::handle() {
            runtime.spawn(async move { pool.serve() });
        }
    }

    fn idle(&self) {
        self.notify(atoms::idle(), None);
    }

    fn worn(&self, interpreter: LocalPid) {
        self.notify(atoms::worn(), Some(interpreter));
    }

    fn grant(&self, waiter: Caller, slot: Slot) {
        // If the process is dead, the message is dropped, and the slot with it.
        waiter.finish(atoms::slot(), |env| granted(env, slot));
    }

    fn fail(&self, waiter: Caller) {
        waiter.finish(atoms::down(), |env| match self.closed.get() {
            Some(reason) => (atoms::stopped(), reason).encode(env),
            None => atoms::owner_gone().encode(env),
        });
    }
}

/// A pool, kept by the table of all pools until its process is gone.
pub struct Opened(Arc<Pool>);

impl Resource for Opened {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, pid: LocalPid, _monitor: Monitor) {
        close(pid);
    }
}

static POOLS: LazyLock<RwLock<HashMap<LocalPid, ResourceArc<Opened>>>> = LazyLock::new(RwLock::default);

fn find(pid: LocalPid) -> Option<Arc<Pool>> {
    POOLS.read().unwrap_or_else(PoisonError::into_inner).get(&pid).map(|opened| Arc::clone(&opened.0))
}

/// How many there are.
pub fn len() -> usize {
    POOLS.read().unwrap_or_else(PoisonError::into_inner).len()
}

/// Nobody finds the pool any more, and those who wait are told.
fn close(pid: LocalPid) {
    let removed = POOLS.write().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    if let Some(runtime) = runtime::handle()
        && let Some(opened) = removed
    {
        runtime.spawn(async move { opened.0.close() });
    }
}

/// A slot in the hands of a caller, until its request is submitted.
pub struct Reservation(Mutex<Option<Slot>>);

impl Resource for Reservation {}

impl Reservation {
    fn slot(&self) -> MutexGuard<'_, Option<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits in a queue. It is taken out when nobody refers to this any more.
pub struct Ticket {
    pool: Arc<Pool>,
    id: u64,
    used: AtomicBool,
}

impl Resource for Ticket {}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.used.load(Ordering::Acquire)
            && let Some(runtime) = runtime::handle()
        {
            let (pool, id) = (Arc::clone(&self.pool), self.id);
            runtime.spawn(async move { pool.forget(id) });
        }
    }
}

/// What an interpreter has to do with a pool.
#[derive(Default)]
pub struct Membership {
    member: OnceLock<Arc<Member>>,
    /// The slots of requests that Python works on. Each is added before its frame is submitted, and taken out when Python answers, when it
    /// says that it has ended work that was cancelled, or when it has gone down.
    running: Mutex<BTreeMap<u64, Slot>>,
}

impl Membership {
    /// A request is about to be submitted: in the slot that its caller has for it, or beyond all that are free.
    pub fn begin(&self, request: u64, reserved: Option<&ResourceArc<Reservation>>) {
        let Some(member) = self.member.get() else { return };
        let own = reserved.and_then(|held| held.slot().take_if(|slot| Arc::ptr_eq(slot.member(), member)));
        let slot = own.unwrap_or_else(|| member.enter());
        self.running().insert(request, slot);
    }

    /// Python has come to the end of a request: the next one finds room. What is returned is to be kept until the caller has been told.
    pub fn end(&self, request: u64) -> Option<Slot> {
        self.member.get()?;
        let mut slot = self.running().remove(&request)?;
        slot.free();
        Some(slot)
    }

    /// Nothing more will be answered.
    pub fn leave(&self) {
        if let Some(member) = self.member.get() {
            member.leave();
        }
    }

    /// Nothing runs any more.
    pub fn clear(&self) {
        let slots = std::mem::take(&mut *self.running());
        drop(slots);
    }

    /// Requests that Python works on.
    pub fn len(&self) -> usize {
        self.running().len()
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Slot>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn granted(env: Env<'_>, slot: Slot) -> Term<'_> {
    let interpreter = slot.member().interpreter();
    (interpreter, ResourceArc::new(Reservation(Mutex::new(Some(slot))))).encode(env)
}

fn share(alone: bool) -> Share {
    if alone { Share::All } else { Share::One }
}

fn member_of(interpreter: LocalPid) -> Option<(ResourceArc<Interpreter>, Arc<Member>)> {
    let interpreter = registry::known(interpreter)?;
    let member = Arc::clone(interpreter.worker.sink.membership.member.get()?);
    Some((interpreter, member))
}

/// Opens a pool, which belongs to the calling process: calls at a time in each member, how many may wait, and how long.
#[rustler::nif]
fn pool_open(env: Env<'_>, concurrency: usize, limit: usize, patience: Option<u64>) -> Atom {
    let owner = env.pid();
    let surroundings = Surroundings { owner, closed: OnceLock::new(), patience };
    let opened = ResourceArc::new(Opened(Pool::new(surroundings, concurrency, limit)));
    POOLS.write().unwrap_or_else(PoisonError::into_inner).insert(owner, opened.clone());
    if env.monitor(&opened, &owner).is_none() {
        close(owner);
    }
    atoms::ok()
}

/// Each interpreter of the calling process's pool is for one call, of which so many run at a time.
#[rustler::nif]
fn pool_once(env: Env<'_>, at_a_time: usize) -> Atom {
    if let Some(pool) = find(env.pid()) {
        pool.once(at_a_time);
    }
    atoms::ok()
}

/// Adds an interpreter to the calling process's pool. It is worn after so many calls.
#[rustler::nif]
fn pool_join(env: Env<'_>, interpreter: LocalPid, most: u64) -> Atom {
    let (Some(pool), Some(interpreter)) = (find(env.pid()), registry::find(interpreter)) else {
        return atoms::noproc();
    };
    let sink = &interpreter.worker.sink;
    let mut new = false;
    let member = sink.membership.member.get_or_init(|| {
        new = true;
        pool.member(sink.owner, most)
    });
    // Not before the interpreter knows its member: a call that had it chosen would have no slot there.
    if new {
        pool.join(member);
    }
    if !new || interpreter.worker.is_closed() {
        pool.leave(member);
        return atoms::noproc();
    }
    atoms::ok()
}

/// Takes an interpreter out of the calling process's pool. `{snex_pool, idle, nil}` tells when nothing runs in it.
#[rustler::nif]
fn pool_leave(env: Env<'_>, interpreter: LocalPid) -> Atom {
    if let (Some(pool), Some((_, member))) = (find(env.pid()), member_of(interpreter)) {
        pool.leave(&member);
    }
    atoms::ok()
}

/// Remembers why a member is gone.
#[rustler::nif]
fn pool_bury(interpreter: LocalPid, why: Kept) -> Atom {
    let mut buried = BURIED.lock().unwrap_or_else(PoisonError::into_inner);
    if buried.len() >= REMEMBERED {
        buried.pop_front();
    }
    buried.push_back((interpreter, why));
    atoms::ok()
}

static BURIED: Mutex<VecDeque<(LocalPid, Kept)>> = Mutex::new(VecDeque::new());

/// Why a member is gone; `nil` for any other process.
#[rustler::nif]
fn pool_buried(env: Env<'_>, interpreter: LocalPid) -> Term<'_> {
    let buried = BURIED.lock().unwrap_or_else(PoisonError::into_inner);
    match buried.iter().rev().find(|(pid, _)| *pid == interpreter) {
        Some((_, why)) => why.encode(env),
        None => atoms::nil().encode(env),
    }
}

/// Calls that run in a member, `nil` when someone has it for itself; those that there have been; whether it may be chosen.
#[rustler::nif]
fn pool_member(interpreter: LocalPid) -> (Option<usize>, u64, bool) {
    member_of(interpreter).map_or((Some(0), 0, false), |(_, member)| member.figures())
}

/// Whether nothing runs in a member, and every caller knows how its call has ended.
#[rustler::nif]
fn pool_idle(interpreter: LocalPid) -> bool {
    member_of(interpreter).is_none_or(|(_, member)| member.is_idle())
}

/// How many calls a pool runs at a time, how many wait, and whether each has an interpreter of its own; nothing of it for what is no pool.
#[rustler::nif]
fn pool_figures(pool: LocalPid) -> (usize, usize, bool) {
    find(pool).map_or((0, 0, false), |pool| (pool.room(), pool.waiting(), pool.is_once()))
}

/// How many calls run in a pool or wait, and how many it runs at a time; `nil` for one that would refuse another call, and for what is no
/// pool.
#[rustler::nif]
fn pool_load(pool: LocalPid) -> Option<(usize, usize)> {
    let pool = find(pool).filter(|pool| pool.is_open())?;
    Some((pool.running().saturating_add(pool.waiting()), pool.room()))
}

/// From now on, nobody is added to the calling process's pool. `{snex_pool, idle, nil}` tells when that may be all.
#[rustler::nif]
fn pool_drain(env: Env<'_>) -> Atom {
    if let Some(pool) = find(env.pid()) {
        pool.drain();
    }
    atoms::ok()
}

/// Closes the calling process's pool, for a reason in external term format.
#[rustler::nif]
fn pool_close(env: Env<'_>, reason: Kept) -> Atom {
    if let Some(pool) = find(env.pid()) {
        let _ = pool.host().closed.set(reason);
        close(env.pid());
    }
    atoms::ok()
}

/// A slot in a pool: `{interpreter, slot}`, `busy`, or `noproc` for what is no pool.
#[rustler::nif]
fn pool_take(env: Env<'_>, pool: LocalPid, alone: bool) -> Term<'_> {
    let Some(pool) = find(pool) else { return atoms::noproc().encode(env) };
    match pool.take(share(alone)) {
        Some(slot) => granted(env, slot),
        None => atoms::busy().encode(env),
    }
}

/// A slot in that member of a pool, whatever runs there; `noproc` for what is none.
#[rustler::nif]
fn pool_enter(env: Env<'_>, pool: LocalPid, interpreter: LocalPid) -> Term<'_> {
    match (find(pool), member_of(interpreter)) {
        (Some(pool), Some((_, member))) if pool.owns(&member) => granted(env, member.enter()),
        _ => atoms::noproc().encode(env),
    }
}

/// Waits for a slot: `{waiting, ticket, patience}`, and later `{reference, slot, {interpreter, slot}}` or `{reference, down, _}`; or why not. For a
/// process that answers a call of a member's, or has been started by one that does, `{interpreter, slot}` at once: what runs in that
/// member may not end before.
#[rustler::nif]
fn pool_wait<'a>(
    env: Env<'a>,
    pool: LocalPid,
    reference: Reference<'a>,
    alone: bool,
    callers: Option<Term<'a>>,
) -> Term<'a> {
    let Some(pool) = find(pool) else { return atoms::noproc().encode(env) };
    let answers = |member: &&Arc<Member>| {
        registry::find(member.interpreter())
            .is_some_and(|interpreter| interpreter.worker.sink.answering.cause(env.pid(), callers) != 0)
    };
    if !alone && let Some(member) = pool.members().iter().find(answers) {
        return granted(env, member.enter());
    }
    let patience = pool.host().patience;
    match pool.wait(Caller::new(env, reference), share(alone)) {
        Ok(id) => {
            let ticket = ResourceArc::new(Ticket { pool, id, used: AtomicBool::new(false) });
            (atoms::waiting(), ticket, patience).encode(env)
        }
        Err(Refused::TooMany(limit)) => (atoms::overloaded(), limit, patience).encode(env),
        Err(Refused::Draining) => atoms::draining().encode(env),
        Err(Refused::Closed) => atoms::noproc().encode(env),
    }
}

/// One who waits gives up. Whether it waited still; otherwise a message is on its way.
#[rustler::nif]
fn pool_forget(ticket: ResourceArc<Ticket>) -> bool {
    !ticket.used.swap(true, Ordering::AcqRel) && ticket.pool.forget(ticket.id)
}

/// Gives a slot back. Whether it was still in the hands of its caller: no request had been submitted.
#[rustler::nif]
fn pool_give_back(slot: ResourceArc<Reservation>) -> bool {
    let slot = slot.slot().take();
    slot.is_some()
}
