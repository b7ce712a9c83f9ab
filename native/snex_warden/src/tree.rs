//! One process tree: a leader and its descendants.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use snex_core::control::{self, Exit};
use snex_core::process_tree;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The pause between two rounds of killing: processes may fork in between.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// A process tree, from the request to start it until nothing of it is left.
pub struct Tree {
    /// The number by which the VM knows the tree.
    pub number: control::Tree,
    /// `None` until the program has forked it.
    pub leader: Option<Pid>,
    /// How the leader ended, once it has been reaped.
    pub exit: Option<Exit>,
    /// When SIGKILL follows SIGTERM; `None` if the tree is not being stopped.
    deadline: Option<Instant>,
    /// The processes that have got SIGTERM. Each gets one: many programs skip their cleanup at the second.
    told: HashSet<i32>,
    /// The `children` of the last round of killing.
    children: Vec<i32>,
    /// Whether the next round of killing has to follow without a pause.
    restless: bool,
    /// Whether the leader has got SIGSTOP, so that it starts nothing more.
    halted: bool,
}

impl Tree {
    /// A tree whose leader runs, or, for `None`, is to be forked.
    pub fn new(number: control::Tree, leader: Option<Pid>) -> Self {
        Tree {
            number,
            leader,
            exit: None,
            deadline: None,
            told: HashSet::new(),
            children: Vec::new(),
            restless: false,
            halted: false,
        }
    }

    /// The leader, until it is reaped. Until then, no other process can have its pid.
    pub fn living(&self) -> Option<Pid> {
        self.leader.filter(|_| self.exit.is_none())
    }

    /// The leader, if this is a copy and its leader has not been reaped. All processes of the tree then descend from
    /// it, orphans too.
    pub fn living_copy(&self) -> Option<Pid> {
        self.living().filter(|_| self.number != control::PROGRAM)
    }

    /// How much of its grace is left, if the tree is being stopped.
    pub fn grace_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Sets the deadline to the end of `grace`, unless there is an earlier one.
    pub fn hurry(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Sends SIGTERM to `members`, once to each.
    pub fn terminate(&mut self, members: &[i32]) {
        for pid in members {
            if self.told.insert(*pid) {
                // Fails if the process is gone, or may not be signalled. Nothing else can be done about it.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
            }
        }
    }

    /// Sends SIGTERM to the leader's process group: the best that can be done on systems that don't list processes.
    pub fn terminate_group(&mut self) {
        if let Some(leader) = self.leader
            && self.told.insert(leader.as_raw())
        {
            let _ = killpg(leader, Signal::SIGTERM);
        }
    }

    /// Whether the deadline has passed.
    pub fn is_due(&self) -> bool {
        self.grace_left().is_some_and(|left| left.is_zero())
    }

    /// One round of killing. Rounds follow until nothing of the tree is left.
    ///
    /// Searching all processes of the machine takes longer than a process needs to fork and exit. A program that
    /// keeps forking and exiting would never be found that way. But each process that it leaves behind becomes a
    /// child of the copy's leader, or of the warden, at once, and it starts in its parent's process group. So this
    /// first kills `children`, which the kernel lists quickly and which include the dead, together with their groups.
    /// Only if that list has nothing new does it search for the rest of the tree, with `members`.
    ///
    /// The leader of a copy is halted first and killed last. While it exists, it adopts the orphans of its tree, so
    /// none of them can be taken for another tree's.
    pub fn kill(&mut self, children: Vec<i32>, members: impl FnOnce() -> Vec<i32>) {
        let spared = self.living_copy();
        if let Some(leader) = spared
            && !self.halted
        {
            self.halted = true;
            let _ = kill(leader, Signal::SIGSTOP);
        }
        let group = spared.map_or(0, Pid::as_raw);
        let known = std::mem::replace(&mut self.children, children);
        self.children.iter().for_each(|pid| process_tree::kill_sparing_group(*pid, group));
        self.restless = self.children.iter().any(|child| !known.contains(child));
        if self.restless {
            return;
        }
        // If the leader has no children, dead ones included, it has no other descendants. A process that it is just
        // starting becomes an orphan of this tree when the leader ends.
        let childless = spared.is_some_and(|leader| process_tree::is_childless(leader.as_raw()));
        let mut others = if childless { Vec::new() } else { members() };
        others.retain(|pid| *pid != group);
        match spared {
            Some(leader) if others.is_empty() => process_tree::kill_leader(leader.as_raw()),
            _ => others.iter().for_each(|pid| process_tree::kill_sparing_group(*pid, group)),
        }
    }

    /// Kills the leader's process group, on systems that don't list processes.
    pub fn kill_group(&mut self) {
        if let Some(leader) = self.leader {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// How long until something has to be done for this tree; `None` if it is not being stopped.
    pub fn pause(&self) -> Option<Duration> {
        let left = self.grace_left()?;
        Some(match left.is_zero() {
            true if self.restless => Duration::ZERO,
            true => SEARCH_INTERVAL,
            false => left,
        })
    }
}
