//! All the trees that descend from the warden: that of the program, and those of its copies.
//!
//! Each leader is a child of the warden's. The leader of a copy adopts what its own descendants leave behind. So whatever else
//! becomes a child of the warden's comes from the program, or from a copy that has just ended: it belongs to that copy, and
//! ends with it. Who owns such a child is noted when it is first seen, and forgotten when it is reaped.

use crate::tree::Tree;
use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::{Pid, getsid};
use snex_core::control::{self, Exit, PROGRAM};
use snex_core::process_tree;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The trees, and who owns which child of the warden's that leads none.
pub struct Forest {
    trees: BTreeMap<control::Tree, Tree>,
    owners: HashMap<i32, control::Tree>,
    /// The copies that have ended and of which something may be left, in the order of their ends.
    ended: Vec<control::Tree>,
    /// Those of which a process has been reaped since children were last looked at: it may have left one that nobody has seen.
    unseen: Vec<control::Tree>,
    /// Leaders that have been reaped since then: their numbers stand for nothing any more.
    reaped: Vec<i32>,
    listed: bool,
}

impl Forest {
    /// A forest of the program's tree.
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

    /// A tree that has not gone.
    pub fn get(&mut self, number: control::Tree) -> Option<&mut Tree> {
        self.trees.get_mut(&number)
    }

    /// Adds a tree that the program is to fork.
    pub fn expect(&mut self, number: control::Tree) {
        self.trees.insert(number, Tree::new(number, None));
    }

    /// Takes out a tree.
    pub fn remove(&mut self, number: control::Tree) {
        self.trees.remove(&number);
        self.ended.retain(|ended| *ended != number);
    }

    /// The trees that the program has been asked to fork, and has not.
    pub fn expected(&self) -> Vec<control::Tree> {
        self.trees.values().filter(|tree| tree.leader.is_none()).map(|tree| tree.number).collect()
    }

    /// The numbers of all trees.
    pub fn numbers(&self) -> Vec<control::Tree> {
        self.trees.keys().copied().collect()
    }

    /// Whether processes can be told apart at all, so that there may be copies.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.trees.is_empty()
    }

    /// The warden's children.
    pub fn look(&mut self) -> Vec<i32> {
        // Whatever these have left behind is among the children by now, and they themselves are not.
        self.unseen.clear();
        self.reaped.clear();
        process_tree::own_children()
    }

    /// Reaps the leaders that have ended.
    pub fn reap_leaders(&mut self) -> Vec<(control::Tree, Exit)> {
        let leaders: Vec<Pid> = self.trees.values().filter_map(Tree::living).collect();
        leaders.into_iter().filter_map(|leader| self.reap(leader.as_raw()).ok()?).collect()
    }

    /// Reaps whatever else has ended: leaders among it, and whether the warden has no child any more.
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

    /// Reaps one child, or any for -1, until one has led a tree.
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
                // It has come and gone since: of any tree whose leader has ended.
                None => {
                    let ended = self.trees.values().filter(|tree| tree.exit.is_some());
                    self.unseen.extend(ended.map(|tree| tree.number));
                }
            }
        }
        Ok(None)
    }

    /// Finds owners for `children`, which `look` has returned before leaders were reaped. So whichever copy has left one of
    /// them behind is known to have ended.
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
                // Of a program or a copy of which nothing else is left.
                process_tree::kill_with_group(*child);
            }
        }
    }

    /// The copy whose session it is in, or else the one that has ended last.
    fn owner_of(&self, child: i32) -> control::Tree {
        let session = getsid(Some(Pid::from_raw(child))).ok();
        let leads = |number: &&control::Tree| {
            session.is_some() && self.trees.get(number).is_some_and(|tree| tree.leader == session)
        };
        self.ended.iter().find(leads).or(self.ended.last()).copied().unwrap_or(PROGRAM)
    }

    /// The trees of which nothing is left. `none`: the warden has no children. Before that, the last ones are not gone, whatever is known
    /// of their processes.
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

    /// Those of which all others of a tree are descendants.
    fn roots(&self, number: control::Tree) -> Vec<i32> {
        let leader = self.trees.get(&number).and_then(Tree::living);
        let owned = self.owners.iter().filter(|(_, owner)| **owner == number).map(|(pid, _)| *pid);
        leader.map(Pid::as_raw).into_iter().chain(owned).collect()
    }

    /// Begins to end a tree: SIGTERM now, SIGKILL after `grace`. Without any grace there is only SIGKILL, next.
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

    /// Kills those whose grace is over.
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

    /// How long nothing has to be done, unless something happens.
    pub fn pause(&self) -> Option<Duration> {
        if self.unseen.is_empty() {
            self.trees.values().filter_map(Tree::pause).min()
        } else {
            Some(Duration::ZERO)
        }
    }
}

fn with_descendants(mut roots: Vec<i32>) -> Vec<i32> {
    // To look for them takes milliseconds on a machine with many processes.
    if roots.is_empty() {
        return roots;
    }
    roots.extend(process_tree::descendants(&roots));
    roots
}

/// A child that has ended, and how; `None` while all that are left run. An error when there are none left.
///
/// Not through `nix`: it knows no real-time signals, and a child that one has ended looks like an error there.
fn wait_for(which: i32) -> Result<Option<(i32, Exit)>, Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    let pid = Errno::result(unsafe { libc::waitpid(which, &raw mut status, libc::WNOHANG) })?;
    if pid == 0 {
        return Ok(None);
    }
    // Without WUNTRACED and WCONTINUED, a child is reported only when it has exited or a signal has ended it.
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Status(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid, exit)))
}

/// Whether there is more to a tree than the warden's own children, when it has none any more. Orphans become children of a
/// subreaper, which only Linux has.
fn others_left(tree: &Tree) -> bool {
    !cfg!(target_os = "linux") && tree.leader.is_some_and(|leader| killpg(leader, None).is_ok())
}
