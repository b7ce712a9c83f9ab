//! Pools of interpreters; see `snex_core::pool`.
//!
//! A slot has these owners, one after the other:
//!
//! 1. the message that grants it, or the NIF that returns it;
//! 2. a [`Reservation`], a term of the caller;
//! 3. the [`Membership`] of the interpreter, from the submission of the request until Python has ended its work, whether or
//!    not the caller still waits for it;
//! 4. the thread that tells the caller; or, if the caller of a stream still waits for items, its entry in the table of
//!    pending requests.
//!
//! Terms and messages are dropped with the process that has them.

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

/// How many members are remembered after their end.
const REMEMBERED: usize = 1024;

/// What a pool needs of the VM. Tasks send its messages, because schedulers must not send this way.
pub struct Surroundings {
    owner: LocalPid,
    /// Why the pool is closed, as a term in external format. Set before the pool is closed.
    closed: OnceLock<Kept>,
    /// How long a caller may wait, in milliseconds. The callers enforce it themselves.
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

/// A pool. The table of all pools keeps it until its process has died.
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

/// How many pools there are.
pub fn len() -> usize {
    POOLS.read().unwrap_or_else(PoisonError::into_inner).len()
}

/// Removes a pool from the table, and tells the callers that wait in it.
fn close(pid: LocalPid) {
    let removed = POOLS.write().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    if let Some(runtime) = runtime::handle()
        && let Some(opened) = removed
    {
        runtime.spawn(async move { opened.0.close() });
    }
}

/// The slot of a caller, until its request is submitted.
pub struct Reservation(Mutex<Option<Slot>>);

impl Resource for Reservation {}

impl Reservation {
    fn slot(&self) -> MutexGuard<'_, Option<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A caller's place in the queue of a pool. The place is given up when the last reference to the ticket is gone.
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

/// The membership of an interpreter in a pool.
#[derive(Default)]
pub struct Membership {
    member: OnceLock<Arc<Member>>,
    /// The slots of the requests that Python works on. Each is added before its frame is submitted. It is taken out
    /// when Python answers, when Python reports the end of cancelled work, or when Python has ended.
    running: Mutex<BTreeMap<u64, Slot>>,
}

impl Membership {
    /// Called before a request is submitted. It runs in the slot that its caller has reserved here, or else in a new
    /// one, even if the member is full.
    pub fn begin(&self, request: u64, reserved: Option<&ResourceArc<Reservation>>) {
        let Some(member) = self.member.get() else { return };
        let own = reserved.and_then(|held| held.slot().take_if(|slot| Arc::ptr_eq(slot.member(), member)));
        let slot = own.unwrap_or_else(|| member.enter());
        self.running().insert(request, slot);
    }

    /// Called when Python has ended a request: the next one finds room. The slot returned must be kept until the
    /// caller has been told.
    pub fn end(&self, request: u64) -> Option<Slot> {
        self.member.get()?;
        let mut slot = self.running().remove(&request)?;
        slot.free();
        Some(slot)
    }

    /// Called when the interpreter goes down: it is no longer chosen.
    pub fn leave(&self) {
        if let Some(member) = self.member.get() {
            member.leave();
        }
    }

    /// Called when Python has ended, and all callers have been told: drops all slots.
    pub fn clear(&self) {
        let slots = std::mem::take(&mut *self.running());
        drop(slots);
    }

    /// How many requests of a pool Python works on.
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

/// Opens a pool that belongs to the calling process. `concurrency`: how many calls run at a time in each member.
/// `limit`: how many calls may wait. `patience`: how long they may wait, in milliseconds.
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

/// From now on, each member of the calling process's pool serves one call. At most `at_a_time` of these calls run at
/// once.
#[rustler::nif]
fn pool_once(env: Env<'_>, at_a_time: usize) -> Atom {
    if let Some(pool) = find(env.pid()) {
        pool.once(at_a_time);
    }
    atoms::ok()
}

/// Adds an interpreter to the calling process's pool. After `most` calls, `{snex_pool, worn, interpreter}` is sent.
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
    // Joins only once the interpreter knows its member. Otherwise, a call that chooses it could not leave its slot
    // there.
    if new {
        pool.join(member);
    }
    if !new || interpreter.worker.is_closed() {
        pool.leave(member);
        return atoms::noproc();
    }
    atoms::ok()
}

/// Takes an interpreter out of the calling process's pool. `{snex_pool, idle, nil}` is sent when nothing runs in it
/// any more.
#[rustler::nif]
fn pool_leave(env: Env<'_>, interpreter: LocalPid) -> Atom {
    if let (Some(pool), Some((_, member))) = (find(env.pid()), member_of(interpreter)) {
        pool.leave(&member);
    }
    atoms::ok()
}

/// Remembers why a member is gone, for `pool_buried`.
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

/// Why a former member is gone; `nil` for any other process.
#[rustler::nif]
fn pool_buried(env: Env<'_>, interpreter: LocalPid) -> Term<'_> {
    let buried = BURIED.lock().unwrap_or_else(PoisonError::into_inner);
    match buried.iter().rev().find(|(pid, _)| *pid == interpreter) {
        Some((_, why)) => why.encode(env),
        None => atoms::nil().encode(env),
    }
}

/// How many calls run in a member, or `nil` while it is checked out; how many calls it has had; whether it may be
/// chosen.
#[rustler::nif]
fn pool_member(interpreter: LocalPid) -> (Option<usize>, u64, bool) {
    member_of(interpreter).map_or((Some(0), 0, false), |(_, member)| member.figures())
}

/// Whether nothing runs in a member, and every caller has been told how its call ended.
#[rustler::nif]
fn pool_idle(interpreter: LocalPid) -> bool {
    member_of(interpreter).is_none_or(|(_, member)| member.is_idle())
}

/// How many calls a pool runs at a time, how many wait, and whether each call has an interpreter of its own; zeros
/// and `false` if `pool` is not a pool.
#[rustler::nif]
fn pool_figures(pool: LocalPid) -> (usize, usize, bool) {
    find(pool).map_or((0, 0, false), |pool| (pool.capacity(), pool.waiting(), pool.is_once()))
}

/// How many calls run or wait in a pool, and how many it runs at a time; `nil` if it would refuse another call, or is
/// not a pool.
#[rustler::nif]
fn pool_load(pool: LocalPid) -> Option<(usize, usize)> {
    let pool = find(pool).filter(|pool| pool.is_open())?;
    Some((pool.running().saturating_add(pool.waiting()), pool.capacity()))
}

/// From now on, the calling process's pool takes no calls. `{snex_pool, idle, nil}` is sent when the last one may
/// have ended.
#[rustler::nif]
fn pool_drain(env: Env<'_>) -> Atom {
    if let Some(pool) = find(env.pid()) {
        pool.drain();
    }
    atoms::ok()
}

/// Closes the calling process's pool. `reason` is a term in external format.
#[rustler::nif]
fn pool_close(env: Env<'_>, reason: Kept) -> Atom {
    if let Some(pool) = find(env.pid()) {
        let _ = pool.host().closed.set(reason);
        close(env.pid());
    }
    atoms::ok()
}

/// Takes a free slot in a pool. Returns `{interpreter, slot}`, `busy`, or `noproc` if `pool` is not a pool.
#[rustler::nif]
fn pool_take(env: Env<'_>, pool: LocalPid, alone: bool) -> Term<'_> {
    let Some(pool) = find(pool) else { return atoms::noproc().encode(env) };
    match pool.take_slot(share(alone)) {
        Some(slot) => granted(env, slot),
        None => atoms::busy().encode(env),
    }
}

/// Takes a slot in `interpreter`, even if it is full. Returns `noproc` if it is not a member of the pool.
#[rustler::nif]
fn pool_enter(env: Env<'_>, pool: LocalPid, interpreter: LocalPid) -> Term<'_> {
    match (find(pool), member_of(interpreter)) {
        (Some(pool), Some((_, member))) if pool.owns(&member) => granted(env, member.enter()),
        _ => atoms::noproc().encode(env),
    }
}

/// Enters the queue of a pool. Returns `{waiting, ticket, patience}`, and later `{reference, slot, {interpreter,
/// slot}}` or `{reference, down, _}` is sent; or returns why the caller cannot wait.
///
/// A process that answers a call from a member, or was started by such a process, gets `{interpreter, slot}` in that
/// member at once: the request that runs there may be waiting for the answer, and so never make room.
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

/// Gives up a place in the queue. Returns whether the caller still had it; otherwise, a message is on its way.
#[rustler::nif]
fn pool_forget(ticket: ResourceArc<Ticket>) -> bool {
    !ticket.used.swap(true, Ordering::AcqRel) && ticket.pool.forget(ticket.id)
}

/// Gives a slot back. Returns whether the caller still had it, that is, no request was submitted with it.
#[rustler::nif]
fn pool_give_back(slot: ResourceArc<Reservation>) -> bool {
    let slot = slot.slot().take();
    slot.is_some()
}
