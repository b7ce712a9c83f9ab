//! Pools: which interpreter a call goes to, how many calls run in each, and who waits for one.
//!
//! Ownership: a [`Slot`] is the right to run in a member, and counts there for as long as it lives. Choosing a member makes
//! a slot, which has exactly one owner at a time: the caller, until its request is submitted; the entry of the running
//! request, until Python has finished it; and then the code that notifies the caller. An owner that dies drops its slot, so
//! no count is ever lost.
//!
//! A slot ends in two steps. When Python has finished the call, [`Slot::free`] makes room for the next one. But the member
//! only counts as idle after the slot has been dropped. An idle member may be ended, and the news of that must not reach the
//! caller before the answer.
//!
//! Choosing a member reads counters. It also takes a read lock on the list of members, which only the pool's process changes.
//! Dropping a slot takes no lock, because a garbage collector may do it: it only asks the [`Host`] to have [`Pool::serve`]
//! called soon.
//!
//! No waiter is missed: a waiter is added to the queue before the members are looked at once more, and a slot is freed before
//! its owner checks whether anyone waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use thiserror::Error;

/// The count of a slot that has a member for itself. Greater than any number of calls.
const ALL: usize = 1 << 32;

/// What a pool needs from its environment.
pub trait Host: Sized + Send + Sync + 'static {
    /// Identifies an interpreter.
    type Interpreter: Copy + Eq + Send + Sync;
    /// Someone who waits for a slot.
    type Waiter: Send;

    /// Has another thread call [`Pool::serve`] soon.
    fn wake(&self, pool: &Arc<Pool<Self>>);

    /// A member that has left the pool is idle, or a member of a draining pool. May be called more than once for the same.
    fn idle(&self);

    /// A member has begun the last call that it may have.
    fn worn(&self, interpreter: Self::Interpreter);

    /// Gives a slot to a waiter. Called while the queue is locked.
    fn grant(&self, waiter: Self::Waiter, slot: Slot<Self>);

    /// Notifies a waiter that the pool is closed.
    fn fail(&self, waiter: Self::Waiter);
}

/// Why a waiter is not added to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// The queue has reached its limit.
    #[error("{0} calls wait already, as many as may")]
    TooMany(usize),
    /// The pool finishes the calls that it has, and accepts no others.
    #[error("the pool is drained")]
    Draining,
    /// No calls run in the pool any more.
    #[error("the pool is closed")]
    Closed,
}

/// How much of a member a slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Room for one call.
    One,
    /// The whole member.
    All,
}

/// Some interpreters, and a queue of those who wait for one.
pub struct Pool<H: Host> {
    host: H,
    /// How many calls run in each member at a time.
    concurrency: usize,
    /// How many may wait.
    limit: usize,
    /// Only the pool's process replaces this, as a whole.
    members: RwLock<Arc<[Arc<Member<H>>]>>,
    /// The length of the queue, for those who do not lock it.
    waiting: AtomicUsize,
    queue: Mutex<Queue<H::Waiter>>,
    draining: AtomicBool,
    /// If each member is for one call only: how many of these calls may run at a time. Otherwise 0.
    once: AtomicUsize,
    /// How many of these calls run.
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
    /// The sum of the counts of all slots whose calls run.
    load: AtomicUsize,
    /// How many slots have been freed and not dropped: their calls have ended, and their callers are being notified.
    notifying: AtomicUsize,
    /// How many calls this member has had.
    calls: AtomicU64,
    /// How many calls it may have.
    most: u64,
    /// Whether it has left the pool, so that it must not be chosen any more.
    left: AtomicBool,
}

/// The right to run in a member, for as long as it lives.
pub struct Slot<H: Host> {
    member: Arc<Member<H>>,
    /// What it adds to the member's load: 1 or [`ALL`], and 0 once it has been freed.
    count: usize,
    /// Whether it counts in the pool's `busy`.
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

    /// From now on, each member is for one call, and `at_a_time` calls run at a time. A member that has had its call stays in
    /// the list until [`Pool::leave`].
    pub fn once(self: &Arc<Self>, at_a_time: usize) {
        self.once.store(at_a_time, SeqCst);
        self.wake_if_awaited();
    }

    /// Whether each member is for one call.
    pub fn is_once(&self) -> bool {
        self.once.load(SeqCst) > 0
    }

    /// A member that may have `most` calls. It is not chosen before [`Pool::join`]. Until then, the caller has to make it known
    /// to its interpreter.
    pub fn member(self: &Arc<Self>, interpreter: H::Interpreter, most: u64) -> Arc<Member<H>> {
        Arc::new(Member {
            interpreter,
            pool: Arc::downgrade(self),
            load: AtomicUsize::new(0),
            notifying: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            most,
            left: AtomicBool::new(false),
        })
    }

    /// Adds a member, which may be chosen from now on.
    pub fn join(self: &Arc<Self>, member: &Arc<Member<H>>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *members = members.iter().chain([member]).cloned().collect();
        drop(members);
        self.wake_if_awaited();
    }

    /// Removes a member, which is not chosen any more. Its calls go on.
    pub fn leave(&self, member: &Arc<Member<H>>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        *members = members.iter().filter(|one| !Arc::ptr_eq(one, member)).cloned().collect();
        drop(members);
        member.leave();
    }

    /// The members in the pool.
    pub fn members(&self) -> Arc<[Arc<Member<H>>]> {
        Arc::clone(&self.members.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a slot in the least loaded member that has room. `None` if there is no room, if others wait, or if the pool is
    /// draining.
    pub fn take_slot(self: &Arc<Self>, share: Share) -> Option<Slot<H>> {
        if self.waiting.load(SeqCst) > 0 {
            return None;
        }
        // The order matters: a drain sets `draining` and then reads the slot counts, so this takes a slot and then reads
        // `draining`.
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
            // A caller that saw the higher count in the meantime waits, and is served when a member joins.
            self.busy.fetch_sub(1, SeqCst);
        }
        slot
    }

    fn choose_among(&self, share: Share, once: bool) -> Option<Slot<H>> {
        let (room, count) = match share {
            Share::One => (if once { 1 } else { self.concurrency }, 1),
            Share::All => (1, ALL),
        };
        let members = self.members();
        loop {
            // The first of the least loaded: it is the most likely one to have run just now, and to have warm caches.
            let (member, load) = members
                .iter()
                .filter(|member| !member.left.load(SeqCst))
                .map(|member| (member, member.load.load(SeqCst)))
                .min_by_key(|(_, load)| *load)
                .filter(|(_, load)| *load < room)?;
            if member.load.compare_exchange(load, load + count, SeqCst, SeqCst).is_ok() {
                let mut slot = Slot { member: Arc::clone(member), count, once: false };
                // The member may have left in the meantime, and been reported as idle. Then the slot is dropped, and the
                // search goes on. A member for one call leaves when it is chosen.
                let left = if once { member.left.swap(true, SeqCst) } else { member.left.load(SeqCst) };
                if !left {
                    slot.once = once;
                    member.count();
                    return Some(slot);
                }
            }
        }
    }

    /// Adds a waiter to the queue, and returns its number.
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

    /// Removes a waiter from the queue. Returns whether it was still there; if not, it has been notified, or is about to be.
    pub fn forget(self: &Arc<Self>, id: u64) -> bool {
        let mut queue = self.queue();
        let found = queue.entries.remove(&id).is_some();
        self.waiting.store(queue.entries.len(), SeqCst);
        drop(queue);
        if found {
            // Those behind it may want a smaller share, for which there is room.
            self.wake_if_awaited();
            if self.draining.load(SeqCst) {
                self.host.idle();
            }
        }
        found
    }

    /// Gives free slots to the waiters, in the order in which they came.
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

    /// Refuses further calls. Those who wait are still served.
    pub fn drain(&self) {
        self.draining.store(true, SeqCst);
        // After this lock, a waiter that was just being added is in the queue, or is going to be refused.
        drop(self.queue());
        self.host.idle();
    }

    /// Closes the pool, and fails everyone who waits.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let entries = std::mem::take(&mut queue.entries);
        self.waiting.store(0, SeqCst);
        // There may be many waiters, and schedulers may be blocked on the lock.
        drop(queue);
        for (waiter, _) in entries.into_values() {
            self.host.fail(waiter);
        }
    }

    /// The environment of the pool.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// Whether `member` is or was a member of this pool.
    pub fn owns(self: &Arc<Self>, member: &Member<H>) -> bool {
        std::ptr::eq(member.pool.as_ptr(), Arc::as_ptr(self))
    }

    /// How many calls may run at a time.
    pub fn capacity(&self) -> usize {
        let members = self.members();
        match self.once.load(SeqCst) {
            0 => members.len().saturating_mul(self.concurrency),
            _ if members.is_empty() => 0,
            once => once,
        }
    }

    /// How many calls run in the pool's members. A call that has a member for itself counts as the member's whole capacity.
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

    /// Whether the pool would accept one more call, to run now or later.
    pub fn is_open(&self) -> bool {
        let capacity = self.capacity();
        capacity > 0
            && !self.draining.load(SeqCst)
            && (self.waiting() < self.limit || self.waiting() == 0 && self.running() < capacity)
    }

    /// The number of waiters.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    fn wake_if_awaited(self: &Arc<Self>) {
        if self.waiting.load(SeqCst) > 0 {
            self.host.wake(self);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<H::Waiter>> {
        // A panic between two statements leaves a consistent queue, so a poisoned lock can be used.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Host> Member<H> {
    /// The member's interpreter.
    pub fn interpreter(&self) -> H::Interpreter {
        self.interpreter
    }

    /// Takes a slot even if the member is full, for a call that can run nowhere else.
    pub fn enter(self: &Arc<Self>) -> Slot<H> {
        self.load.fetch_add(1, SeqCst);
        self.count();
        Slot { member: Arc::clone(self), count: 1, once: false }
    }

    /// Marks the member as left: it is not chosen any more.
    pub fn leave(&self) {
        self.left.store(true, SeqCst);
        if self.is_idle()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.host.idle();
        }
    }

    /// How many calls run in the member (`None` while one call has it for itself), how many it has had, and whether it may be
    /// chosen.
    pub fn figures(&self) -> (Option<usize>, u64, bool) {
        let load = self.load.load(SeqCst);
        ((load < ALL).then_some(load), self.calls.load(SeqCst), !self.left.load(SeqCst))
    }

    /// Whether no call runs in the member, and every caller has been notified of the end of its call.
    pub fn is_idle(&self) -> bool {
        // `load` has to be read first: a slot adds itself to `notifying` before it leaves `load`.
        self.load.load(SeqCst) == 0 && self.notifying.load(SeqCst) == 0
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
    /// The member that this is a slot of.
    pub fn member(&self) -> &Arc<Member<H>> {
        &self.member
    }

    /// Makes room for the next call, because the call of this slot has ended. Drop the slot after notifying the caller.
    pub fn free(&mut self) {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        self.member.notifying.fetch_add(1, SeqCst);
        self.member.load.fetch_sub(count, SeqCst);
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
        member.notifying.fetch_sub(1, SeqCst);
        let Some(pool) = member.pool.upgrade() else { return };
        if member.is_idle() && (member.left.load(SeqCst) || pool.draining.load(SeqCst)) {
            pool.host.idle();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
