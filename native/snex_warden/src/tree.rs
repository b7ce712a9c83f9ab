//! One tree of processes: a leader and what descends from it.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use snex_core::control::{self, Exit};
use snex_core::process_tree;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How often a tree is searched again once it is being killed: a process may fork in between.
const SEARCH_INTERVAL: Duration = Duration::from_millis(20);

/// A tree, from the request to start it until nothing of it is left.
pub struct Tree {
    /// By what the VM knows it.
    pub number: control::Tree,
    /// `None` while the program has been asked to fork it.
    pub leader: Option<Pid>,
    /// How the leader ended, once it has.
    pub exit: Option<Exit>,
    /// When SIGTERM turns into SIGKILL; `None` while it is not being stopped.
    deadline: Option<Instant>,
    /// Those that have SIGTERM. Many programs take a second one for a demand to leave everything as it is.
    told: HashSet<i32>,
    /// The children of the round of killing before.
    children: Vec<i32>,
    /// Whether the last round of killing asked for the next one at once.
    restless: bool,
    /// Whether the leader has been halted, so that it starts nothing more.
    halted: bool,
}

impl Tree {
    /// A tree whose leader runs, or is to be forked.
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

    /// The leader, while it has not been reaped: until then its number is nobody else's.
    pub fn living(&self) -> Option<Pid> {
        self.leader.filter(|_| self.exit.is_none())
    }

    /// Whether this is a copy whose leader lives: what it has started, and what that has left behind, descends from it.
    pub fn living_copy(&self) -> Option<Pid> {
        self.living().filter(|_| self.number != control::PROGRAM)
    }

    /// How much of the grace is left in a stop.
    pub fn grace_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Has the tree end within `grace`, or earlier if it has been told so before.
    pub fn hurry(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
    }

    /// Sends SIGTERM to `members`, once to each.
    pub fn terminate(&mut self, members: &[i32]) {
        for pid in members {
            if self.told.insert(*pid) {
                // Errors mean that a process is gone already, or is not ours to signal; there is nobody else to try.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGTERM);
            }
        }
    }

    /// The same where processes cannot be listed: the group of the leader is all that can be reached then.
    pub fn terminate_group(&mut self) {
        if let Some(leader) = self.leader
            && self.told.insert(leader.as_raw())
        {
            let _ = killpg(leader, Signal::SIGTERM);
        }
    }

    /// Whether it is time to kill.
    pub fn is_due(&self) -> bool {
        self.grace_left().is_some_and(|left| left.is_zero())
    }

    /// One round of killing. A tree is killed in as many rounds as it takes.
    ///
    /// A look at every process of the machine takes longer than one needs to fork and exit, so a program that does nothing
    /// else is never there when its turn comes. But each process that it leaves becomes a child of the copy, or of the warden,
    /// at that moment, and began in the group of its parent. Those `children` the kernel lists at once, the dead among them,
    /// whose groups are killed as well. Only when that list has nothing new, the rest of the tree is looked for: `members`.
    ///
    /// The leader of a copy is halted first and killed last, so that nothing of its tree is ever taken for another's.
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
        // All that descends from a copy has one of its children above it, which may have ended by now. What it starts at this very
        // moment becomes the warden's child with its end, and belongs to it.
        let childless = spared.is_some_and(|leader| process_tree::is_childless(leader.as_raw()));
        let mut others = if childless { Vec::new() } else { members() };
        others.retain(|pid| *pid != group);
        match spared {
            Some(leader) if others.is_empty() => process_tree::kill_leader(leader.as_raw()),
            _ => others.iter().for_each(|pid| process_tree::kill_sparing_group(*pid, group)),
        }
    }

    /// The same where processes cannot be listed.
    pub fn kill_group(&mut self) {
        if let Some(leader) = self.leader {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }

    /// When it wants to be looked at again; `None` for a tree that is not being stopped.
    pub fn pause(&self) -> Option<Duration> {
        let left = self.grace_left()?;
        Some(match left.is_zero() {
            true if self.restless => Duration::ZERO,
            true => SEARCH_INTERVAL,
            false => left,
        })
    }
}
