//! All the processes that descend from the warden.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid};
use snex_core::control::Exit;
use snex_core::process_tree;
use std::collections::HashSet;

/// Sends SIGTERM, once to each process.
#[derive(Default)]
pub struct Terminator {
    /// Those that have it. Many programs take a second SIGTERM for a demand to leave everything as it is.
    told: HashSet<i32>,
}

impl Terminator {
    /// Tells the whole tree: every descendant, also one that left the session or whose parent is gone (the warden adopts
    /// those). Where processes cannot be listed, the group of `leader`: all that can be reached then.
    pub fn round(&mut self, leader: Pid) {
        // Errors mean that a process is gone already, or is not ours to signal; there is nobody else to try.
        if process_tree::is_listed() {
            for pid in process_tree::descendants(getpid().as_raw()) {
                if self.told.insert(pid) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
            }
        } else if self.told.insert(leader.as_raw()) {
            let _ = killpg(leader, Signal::SIGTERM);
        }
    }
}

/// Kills a tree, in as many rounds as it takes.
///
/// A look at every process of the machine takes longer than one needs to fork and exit, so a program that does nothing else
/// is never there when its turn comes. But each process that it leaves is the warden's own child from that moment, and began
/// in the group of its parent. Those children the kernel lists at once, the dead among them, whose groups are killed as
/// well. Only when that list has nothing new is the rest of the tree looked for.
///
/// Where processes cannot be listed, each round kills the group of the leader.
#[derive(Default)]
pub struct Killer {
    /// The warden's children of the round before.
    children: Vec<i32>,
}

impl Killer {
    /// One round. Whether the next one should follow without a pause: the tree still grows.
    pub fn round(&mut self, leader: Pid) -> bool {
        if !process_tree::is_listed() {
            let _ = killpg(leader, Signal::SIGKILL);
            return false;
        }
        let known = std::mem::replace(&mut self.children, process_tree::own_children());
        self.children.iter().copied().for_each(process_tree::end);
        let grows = self.children.iter().any(|child| !known.contains(child));
        if !grows {
            process_tree::descendants(getpid().as_raw()).into_iter().for_each(process_tree::end);
        }
        grows
    }
}

/// What reaping found.
pub struct Reaped {
    /// How the leader ended, if it was among those reaped.
    pub leader: Option<Exit>,
    /// Nothing of the tree is left.
    pub none_left: bool,
}

/// Reaps every child that has ended.
pub fn reap(leader: Pid) -> Reaped {
    let mut reaped = Reaped { leader: None, none_left: false };
    loop {
        match wait_for_any() {
            Ok(None) => return reaped,
            Ok(Some((pid, exit))) if pid == leader => reaped.leader = Some(exit),
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Err(_) => {
                reaped.none_left = !others_left(leader);
                return reaped;
            }
        }
    }
}

/// The next child that has ended, and how; `None` while all that are left run. An error when there are none left.
///
/// Not through `nix`: it knows no real-time signals, and a child that one has ended looks like an error there.
fn wait_for_any() -> Result<Option<(Pid, Exit)>, Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a local variable.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    if pid == 0 {
        return Ok(None);
    }
    // Without WUNTRACED and WCONTINUED, a child is reported only when it has exited or a signal has ended it.
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Status(libc::WEXITSTATUS(status))
    };
    Ok(Some((Pid::from_raw(pid), exit)))
}

/// Whether there is more to the tree than the warden's own children, when it has none any more. Orphans become children of a
/// subreaper, which only Linux has.
fn others_left(leader: Pid) -> bool {
    !cfg!(target_os = "linux") && killpg(leader, None).is_ok()
}
