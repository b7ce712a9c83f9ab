//! All process trees below the warden: that of the program, and those of its copies.
//!
//! The leader of each tree is a child of the warden. While the leader of a copy lives, it adopts the orphans of its
//! own tree. So any other child of the warden is an orphan: of the program's tree, or of a copy whose leader has just
//! ended. It is assigned to that tree when it is first seen, and ends with it. The assignment is removed when the
//! orphan is reaped.

use crate::tree::Tree;
use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getsid};
use snex_core::control::{self, Exit, PROGRAM};
use snex_core::process_tree;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The trees, and the tree that owns each orphan among the warden's children.
pub struct Forest {
    trees: BTreeMap<control::Tree, Tree>,
    owners: HashMap<i32, control::Tree>,
    /// Copies whose leaders have ended, and of which orphans may be left; in the order of their ends.
    ended: Vec<control::Tree>,
    /// Trees of which a process has been reaped since the children were last listed. It may have left an orphan that
    /// has not been seen yet.
    unseen: Vec<control::Tree>,
    /// Leaders that have been reaped since then. Their pids in that list are no longer valid.
    reaped: Vec<i32>,
    listed: bool,
}

impl Forest {
    /// A forest with the program's tree only.
    pub fn new(program: Pid) -> Self {
        Forest {
            trees: BTreeMap::from([(PROGRAM, Tree::new(PROGRAM, Some(program)))]),
            owners: HashMap::new(),
            ended: Vec::new(),
            unseen: Vec::new(),
            reaped: Vec::new(),
            listed: process_tree::is_listed(),
        }
    }

    /// A tree of which something is left, or that is to be forked.
    pub fn get(&mut self, number: control::Tree) -> Option<&mut Tree> {
        self.trees.get_mut(&number)
    }

    /// Adds a tree that the program has been asked to fork.
    pub fn expect(&mut self, number: control::Tree) {
        self.trees.insert(number, Tree::new(number, None));
    }

    pub fn remove(&mut self, number: control::Tree) {
        self.trees.remove(&number);
        self.ended.retain(|ended| *ended != number);
    }

    /// The trees that the program has been asked to fork, and has not forked yet.
    pub fn expected(&self) -> Vec<control::Tree> {
        self.trees.values().filter(|tree| tree.leader.is_none()).map(|tree| tree.number).collect()
    }

    /// The numbers of all trees.
    pub fn numbers(&self) -> Vec<control::Tree> {
        self.trees.keys().copied().collect()
    }

    /// Whether the system lists processes, which is necessary to tell the trees of copies apart.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether nothing of any tree is left.
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// Lists the warden's children.
    pub fn look(&mut self) -> Vec<i32> {
        // The list is made after these were reaped: it has their orphans, and not they themselves.
        self.unseen.clear();
        self.reaped.clear();
        process_tree::own_children()
    }

    /// Reaps leaders that have ended, and returns them.
    pub fn reap_leaders(&mut self) -> Vec<(control::Tree, Exit)> {
        let leaders: Vec<Pid> = self.trees.values().filter_map(Tree::living).collect();
        leaders.into_iter().filter_map(|leader| self.reap(leader.as_raw()).ok()?).collect()
    }

    /// Reaps all other children that have ended. Returns the leaders among them, and whether the warden has no
    /// children left.
    pub fn reap_all(&mut self) -> (Vec<(control::Tree, Exit)>, bool) {
        let mut leaders = Vec::new();
        loop {
            match self.reap(-1) {
                Ok(Some(leader)) => leaders.push(leader),
                Ok(None) => return (leaders, false),
                Err(Errno::EINTR) => {}
                Err(_) => return (leaders, true),
            }
        }
    }

    /// Reaps the child `which`, or any children for -1, until one was the leader of a tree.
    fn reap(&mut self, which: i32) -> Result<Option<(control::Tree, Exit)>, Errno> {
        while let Some((pid, exit)) = wait_for(which)? {
            let owner = self.owners.remove(&pid);
            let led = self.trees.values_mut().find(|tree| tree.living() == Some(Pid::from_raw(pid)));
            if let Some(tree) = led {
                tree.exit = Some(exit);
                self.reaped.push(pid);
                self.unseen.push(tree.number);
                if tree.number != PROGRAM {
                    self.ended.push(tree.number);
                }
                return Ok(Some((tree.number, exit)));
            }
            match owner {
                Some(owner) => self.unseen.push(owner),
                // An orphan that was never seen: of any tree whose leader has ended.
                None => {
                    let ended = self.trees.values().filter(|tree| tree.exit.is_some());
                    self.unseen.extend(ended.map(|tree| tree.number));
                }
            }
        }
        Ok(None)
    }

    /// Finds the owners of new orphans among `children`. `look` has listed these before leaders were reaped, so the
    /// copy that left an orphan behind is known to have ended.
    pub fn adopt(&mut self, children: &[i32]) {
        for child in children {
            let leads = self.trees.values().any(|tree| tree.living() == Some(Pid::from_raw(*child)));
            if leads || self.reaped.contains(child) || self.owners.contains_key(child) {
                continue;
            }
            let owner = self.owner_of(*child);
            self.owners.insert(*child, owner);
            if let Some(tree) = self.trees.get_mut(&owner) {
                if tree.grace_left().is_some() {
                    tree.terminate(&[*child]);
                }
            } else {
                // Nothing else is left of its tree.
                process_tree::kill_with_group(*child);
            }
        }
    }

    /// The tree that owns an orphan: the ended copy whose session it is in, or else the copy that has ended last, or
    /// else the program.
    fn owner_of(&self, child: i32) -> control::Tree {
        let session = getsid(Some(Pid::from_raw(child))).ok();
        let leads = |number: &&control::Tree| {
            session.is_some() && self.trees.get(number).is_some_and(|tree| tree.leader == session)
        };
        self.ended.iter().find(leads).or(self.ended.last()).copied().unwrap_or(PROGRAM)
    }

    /// The trees of which nothing is left. `none`: whether the warden has no children. While it has some, not all
    /// trees can be gone, so the result is empty if it would have all of them.
    pub fn gone(&self, none: bool) -> Vec<control::Tree> {
        let is_gone = |tree: &&Tree| {
            tree.exit.is_some()
                && if none {
                    !others_left(tree)
                } else {
                    self.listed
                        && !self.unseen.contains(&tree.number)
                        && !self.owners.values().any(|owner| *owner == tree.number)
                }
        };
        let gone: Vec<_> = self.trees.values().filter(is_gone).map(|tree| tree.number).collect();
        if none || gone.len() < self.trees.len() { gone } else { Vec::new() }
    }

    /// The roots of a tree: its leader and its orphans, from which all its other processes descend.
    fn roots(&self, number: control::Tree) -> Vec<i32> {
        let leader = self.trees.get(&number).and_then(Tree::living);
        let owned = self.owners.iter().filter(|(_, owner)| **owner == number).map(|(pid, _)| *pid);
        leader.map(Pid::as_raw).into_iter().chain(owned).collect()
    }

    /// Begins to end a tree: SIGTERM now, SIGKILL after `grace`. If `grace` is zero, SIGTERM is left out.
    pub fn stop(&mut self, number: control::Tree, grace: Duration) {
        let roots = self.roots(number);
        let Some(tree) = self.trees.get_mut(&number) else { return };
        tree.hurry(grace);
        if tree.is_due() {
            return;
        }
        if self.listed {
            tree.terminate(&with_descendants(roots));
        } else {
            tree.terminate_group();
        }
    }

    /// Kills the trees whose grace is over.
    pub fn kill_due(&mut self) {
        for number in self.numbers() {
            let roots = self.roots(number);
            let Some(tree) = self.trees.get_mut(&number).filter(|tree| tree.is_due()) else { continue };
            if !self.listed {
                tree.kill_group();
                continue;
            }
            let children = match tree.living_copy() {
                Some(leader) => process_tree::children(leader.as_raw()),
                None => roots.clone(),
            };
            tree.kill(children, || with_descendants(roots));
        }
    }

    /// How long to wait for events at most; `None` for any time.
    pub fn pause(&self) -> Option<Duration> {
        if self.unseen.is_empty() {
            self.trees.values().filter_map(Tree::pause).min()
        } else {
            Some(Duration::ZERO)
        }
    }
}

fn with_descendants(mut roots: Vec<i32>) -> Vec<i32> {
    // The search takes milliseconds on a machine with many processes.
    if roots.is_empty() {
        return roots;
    }
    roots.extend(process_tree::descendants(&roots));
    roots
}

/// A child that has ended, and how; `None` if all children still run; an error if there are none.
///
/// This does not use `nix`, which has no real-time signals: there, a child ended by one looks like an error.
fn wait_for(which: i32) -> Result<Option<(i32, Exit)>, Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    let pid = Errno::result(unsafe { libc::waitpid(which, &raw mut status, libc::WNOHANG) })?;
    if pid == 0 {
        return Ok(None);
    }
    // Without WUNTRACED and WCONTINUED, waitpid only reports children that have exited or were ended by a signal.
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Status(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid, exit)))
}

/// Whether something of a tree is left although the warden has no children. Impossible on Linux, where the warden is
/// a subreaper and so adopts orphans.
fn others_left(tree: &Tree) -> bool {
    !cfg!(target_os = "linux") && tree.leader.is_some_and(|leader| killpg(leader, None).is_ok())
}
