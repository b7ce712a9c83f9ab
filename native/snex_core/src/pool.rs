//! Pools: which interpreter a call goes to, how many run in each, and who waits for one.
//!
//! Ownership: a [`Slot`] is the right to run in a member, and counts there for as long as it lives. It is made where a member is
//! chosen, and belongs to exactly one owner at a time: the caller, until its request is submitted; then what Python has of the
//! request, until Python has come to its end; and then whoever tells the caller. Whoever dies drops what it owns, so no count is ever
//! lost.
//!
//! A slot ends in two steps. When Python has come to the end of a call, [`Slot::free`] gives its room to the next one. The member is not
//! idle before the slot is dropped: it would be ended, and its end could reach the caller before the answer does.
//!
//! Choosing a member reads counters; the one lock on the way, that of the list of members, is written to by the pool's process alone.
//! A slot that is dropped takes no lock at all: it may be dropped by a garbage collector. It only asks the [`Host`] to have
//! [`Pool::serve`] called soon.
//!
//! Nobody is overlooked: one who begins to wait is in the queue before the members are looked at once more, and a slot is free before
//! its owner looks whether anybody waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use thiserror::Error;

/// What a slot counts that has a member for itself. More than there are calls.
const ALL: usize = 1 << 32;

/// What the surroundings of a pool do for it.
pub trait Host: Sized + Send + Sync + 'static {
    /// What names an interpreter.
    type Interpreter: Copy + Eq + Send + Sync;
    /// Somebody who waits for a slot.
    type Waiter: Send;

    /// Has [`Pool::serve`] called soon, by another thread.
    fn wake(&self, pool: &Arc<Pool<Self>>);

    /// A member that has left is idle, or one of a pool that is drained. May come more than once.
    fn idle(&self);

    /// A member has had as many calls as it is to have.
    fn worn(&self, interpreter: Self::Interpreter);

    /// Tells one who waits that it has a slot. The queue is locked.
    fn grant(&self, waiter: Self::Waiter, slot: Slot<Self>);

    /// Tells one who waits that the pool is closed.
    fn fail(&self, waiter: Self::Waiter);
}

/// Why nobody is added to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// As many wait as may.
    #[error("{0} calls wait already, as many as may")]
    TooMany(usize),
    /// Those that run come to their end, and no others begin.
    #[error("the pool is drained")]
    Draining,
    /// Nothing runs in it any more.
    #[error("the pool is closed")]
    Closed,
}

/// How much of a member is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Room for one call.
    One,
    /// All of it.
    All,
}

/// Some interpreters, and those that wait for one.
pub struct Pool<H: Host> {
    host: H,
    /// Calls at a time in each member.
    concurrency: usize,
    /// How many may wait.
    limit: usize,
    /// Replaced as a whole, by the pool's process alone.
    members: RwLock<Arc<[Arc<Member<H>>]>>,
    /// As many as there are in the queue.
    waiting: AtomicUsize,
    queue: Mutex<Queue<H::Waiter>>,
    draining: AtomicBool,
    /// Where each member is for one call: how many of them run at a time. 0 elsewhere.
    once: AtomicUsize,
    /// Slots of such calls.
    busy: AtomicUsize,
}

struct Queue<W> {
    entries: BTreeMap<u64, (W, Share)>,
    latest: u64,
    closed: bool,
}

/// An interpreter of a pool.
pub struct Member<H: Host> {
    interpreter: H::Interpreter,
    pool: Weak<Pool<H>>,
    /// Slots whose calls run, each for what it counts.
    load: AtomicUsize,
    /// Slots whose calls have ended, and whose callers are being told.
    telling: AtomicUsize,
    /// Calls that there have been.
    calls: AtomicU64,
    /// How many there are to be.
    most: u64,
    /// Set when nobody is to choose it any more.
    left: AtomicBool,
}

/// The right to run in a member, for as long as it lives.
pub struct Slot<H: Host> {
    member: Arc<Member<H>>,
    /// 0 once its room is free.
    counts: usize,
    /// Whether it is one of the pool's `busy`.
    once: bool,
}

impl<H: Host> Pool<H> {
    /// A pool without members.
    pub fn new(host: H, concurrency: usize, limit: usize) -> Arc<Self> {
        Arc::new(Pool {
            host,
            concurrency,
            limit,
            members: RwLock::new(Arc::new([])),
            waiting: AtomicUsize::new(0),
            queue: Mutex::new(Queue { entries: BTreeMap::new(), latest: 0, closed: false }),
            draining: AtomicBool::new(false),
            once: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
        })
    }

    /// From now on each member is for one call, and stays among the members until it is taken out. So many calls run at a time.
    pub fn once(self: &Arc<Self>, at_a_time: usize) {
        self.once.store(at_a_time, SeqCst);
        self.wake_if_awaited();
    }

    /// Whether each member is for one call.
    pub fn is_once(&self) -> bool {
        self.once.load(SeqCst) > 0
    }

    /// A member that is to have so many calls. Nobody chooses it before [`Pool::join`]: by then, its interpreter has to know it.
    pub fn member(self: &Arc<Self>, interpreter: H::Interpreter, most: u64) -> Arc<Member<H>> {
        Arc::new(Member {
            interpreter,
            pool: Arc::downgrade(self),
            load: AtomicUsize::new(0),
            telling: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            most,
            left: AtomicBool::new(false),
        })
    }

    /// Adds a member: from now on it may be chosen.
    pub fn join(self: &Arc<Self>, member: &Arc<Member<H>>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *members = members.iter().chain([member]).cloned().collect();
        drop(members);
        self.wake_if_awaited();
    }

    /// Takes a member out: nobody chooses it any more.
    pub fn leave(&self, member: &Arc<Member<H>>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *members = members.iter().filter(|one| !Arc::ptr_eq(one, member)).cloned().collect();
        drop(members);
        member.leave();
    }

    /// The members that may be chosen.
    pub fn members(&self) -> Arc<[Arc<Member<H>>]> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A slot in the least loaded member with room, unless others wait for one.
    pub fn take(self: &Arc<Self>, share: Share) -> Option<Slot<H>> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        // Looked at last: who drains the pool looks at the slots after that.
        self.choose(share).filter(|_| !self.draining.load(SeqCst))
    }

    fn choose(&self, share: Share) -> Option<Slot<H>> {
        let once = self.once.load(SeqCst);
        if once == 0 {
            return self.choose_among(share, false);
        }
        let more = |busy: usize| (busy < once).then_some(busy + 1);
        self.busy.fetch_update(SeqCst, SeqCst, more).ok()?;
        let slot = self.choose_among(share, true);
        if slot.is_none() {
            // Whoever has found all of them busy just now will wait, and is served with those who come.
            self.busy.fetch_sub(1, SeqCst);
        }
        slot
    }

    fn choose_among(&self, share: Share, once: bool) -> Option<Slot<H>> {
        let (room, counts) = match share {
            Share::One => (if once { 1 } else { self.concurrency }, 1),
            Share::All => (1, ALL),
        };
        let members = self.members();
        loop {
            // The first of them: it may have run just now, and be warm.
            let (member, load) = members
                .iter()
                .filter(|member| !member.left.load(SeqCst))
                .map(|member| (member, member.load.load(SeqCst)))
                .min_by_key(|(_, load)| *load)
                .filter(|(_, load)| *load < room)?;
            if member.load.compare_exchange(load, load + counts, SeqCst, SeqCst).is_ok() {
                let mut slot = Slot { member: Arc::clone(member), counts, once: false };
                // It may have left meanwhile, and have been told that it is idle. One that is for one call leaves with it.
                let left = if once { member.left.swap(true, SeqCst) } else { member.left.load(SeqCst) };
                if !left {
                    slot.once = once;
                    member.count();
                    return Some(slot);
                }
            }
        }
    }

    /// Adds one who waits to the queue, and returns its number.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn wait(self: &Arc<Self>, waiter: H::Waiter, share: Share) -> Result<u64, Refused> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(Refused::Closed);
        }
        if self.draining.load(SeqCst) {
            return Err(Refused::Draining);
        }
        if queue.entries.len() >= self.limit {
            return Err(Refused::TooMany(self.limit));
        }
        queue.latest += 1;
        let id = queue.latest;
        queue.entries.insert(id, (waiter, share));
        self.waiting.store(queue.entries.len(), SeqCst);
        drop(queue);
        self.host.wake(self);
        Ok(id)
    }

    /// Takes one who waits out of the queue. Whether it was still there; otherwise it is told, now or soon.
    pub fn forget(self: &Arc<Self>, id: u64) -> bool {
        let mut queue = self.queue();
        let found = queue.entries.remove(&id).is_some();
        self.waiting.store(queue.entries.len(), SeqCst);
        drop(queue);
        if found {
            // The next ones may want less.
            self.wake_if_awaited();
            if self.draining.load(SeqCst) {
                self.host.idle();
            }
        }
        found
    }

    /// Gives free slots to those who have waited longest.
    pub fn serve(&self) {
        loop {
            let mut queue = self.queue();
            let Some((_, share)) = queue.entries.first_key_value().map(|(id, (_, share))| (*id, *share))
            else {
                return;
            };
            let Some(slot) = self.choose(share) else { return };
            if let Some((_, (waiter, _))) = queue.entries.pop_first() {
                self.waiting.store(queue.entries.len(), SeqCst);
                self.host.grant(waiter, slot);
            }
        }
    }

    /// From now on, nobody is added. Those who wait are served.
    pub fn drain(&self) {
        self.draining.store(true, SeqCst);
        // One who is just being added is in the queue now, or is refused.
        drop(self.queue());
        self.host.idle();
    }

    /// Tells all who wait that there will be nothing.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let entries = std::mem::take(&mut queue.entries);
        self.waiting.store(0, SeqCst);
        // There may be many, and schedulers may want the lock.
        drop(queue);
        for (waiter, _) in entries.into_values() {
            self.host.fail(waiter);
        }
    }

    /// What does things for it.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Whether a member is one of it, or was.
    pub fn owns(self: &Arc<Self>, member: &Member<H>) -> bool {
        std::ptr::eq(member.pool.as_ptr(), Arc::as_ptr(self))
    }

    /// How many calls run at a time.
    pub fn room(&self) -> usize {
        let members = self.members();
        match self.once.load(SeqCst) {
            0 => members.len().saturating_mul(self.concurrency),
            _ if members.is_empty() => 0,
            once => once,
        }
    }

    /// How many run in members that may be chosen. One who has a member for itself counts as many as run there at a time.
    pub fn running(&self) -> usize {
        if self.is_once() {
            return self.busy.load(SeqCst);
        }
        let load = |member: &Arc<Member<H>>| match member.load.load(SeqCst) {
            load if load < ALL => load,
            _ => self.concurrency,
        };
        self.members().iter().map(load).fold(0, usize::saturating_add)
    }

    /// Whether one more call would run here, now or later.
    pub fn is_open(&self) -> bool {
        let room = self.room();
        room > 0
            && !self.draining.load(SeqCst)
            && (self.waiting() < self.limit || self.waiting() == 0 && self.running() < room)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    fn wake_if_awaited(self: &Arc<Self>) {
        if self.waiting.load(SeqCst) > 0 {
            self.host.wake(self);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<H::Waiter>> {
        // It is consistent between any two statements that hold it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Host> Member<H> {
    /// The interpreter.
    pub fn interpreter(&self) -> H::Interpreter {
        self.interpreter
    }

    /// A slot without a look at how many there are, for what can run nowhere else.
    pub fn enter(self: &Arc<Self>) -> Slot<H> {
        self.load.fetch_add(1, SeqCst);
        self.count();
        Slot { member: Arc::clone(self), counts: 1, once: false }
    }

    /// Nobody chooses it any more.
    pub fn leave(&self) {
        self.left.store(true, SeqCst);
        if self.is_idle()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.host.idle();
        }
    }

    /// Calls that run in it, `None` while someone has it for itself; those that there have been; whether it may be chosen.
    pub fn figures(&self) -> (Option<usize>, u64, bool) {
        let load = self.load.load(SeqCst);
        ((load < ALL).then_some(load), self.calls.load(SeqCst), !self.left.load(SeqCst))
    }

    /// Whether nothing runs in it, and every caller knows how its call has ended.
    pub fn is_idle(&self) -> bool {
        // In this order: a slot is among the latter before it leaves the former.
        self.load.load(SeqCst) == 0 && self.telling.load(SeqCst) == 0
    }

    fn count(&self) {
        if self.calls.fetch_add(1, SeqCst) + 1 == self.most
            && let Some(pool) = self.pool.upgrade()
        {
            pool.host.worn(self.interpreter);
        }
    }
}

impl<H: Host> Slot<H> {
    /// Where it is.
    pub fn member(&self) -> &Arc<Member<H>> {
        &self.member
    }

    /// Its call has ended: the next one finds room. The caller is to be told before the slot is dropped.
    pub fn free(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        if counts == 0 {
            return;
        }
        self.member.telling.fetch_add(1, SeqCst);
        self.member.load.fetch_sub(counts, SeqCst);
        let Some(pool) = self.member.pool.upgrade() else { return };
        if self.once {
            pool.busy.fetch_sub(1, SeqCst);
        }
        pool.wake_if_awaited();
    }
}

impl<H: Host> Drop for Slot<H> {
    fn drop(&mut self) {
        self.free();
        let member = &self.member;
        member.telling.fetch_sub(1, SeqCst);
        let Some(pool) = member.pool.upgrade() else { return };
        if member.is_idle() && (member.left.load(SeqCst) || pool.draining.load(SeqCst)) {
            pool.host.idle();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
