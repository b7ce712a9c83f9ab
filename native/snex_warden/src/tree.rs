//! All the processes that descend from the warden.

use nix::errno::Errno;
use nix::sys::signal::Signal;
#[cfg(target_os = "linux")]
use nix::sys::signal::kill;
#[cfg(not(target_os = "linux"))]
use nix::sys::signal::killpg;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use snex_core::control::Exit;
#[cfg(target_os = "linux")]
use snex_core::process_tree;

/// Sends SIGTERM to the whole tree: every descendant, also one that left the session or whose parent is gone (the warden
/// adopts those).
#[cfg(target_os = "linux")]
pub fn terminate(_leader: Pid) {
    for pid in process_tree::descendants(own_pid()) {
        // An error means that the process is gone already, or is not ours to signal; there is nobody else to try.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

/// Sends SIGTERM to the group of `leader`: all that can be found of a tree without a subreaper.
#[cfg(not(target_os = "linux"))]
pub fn terminate(leader: Pid) {
    let _ = killpg(leader, Signal::SIGTERM);
}

/// Kills a tree, in as many rounds as it takes.
///
/// A look at every process of the machine takes longer than one needs to fork and exit, so a program that does nothing else
/// is never there when its turn comes. But each process that it leaves is the warden's own child from that moment, and began
/// in the group of its parent. Those children the kernel lists at once, the dead among them, whose groups are killed as
/// well. Only when that list has nothing new is the rest of the tree looked for.
#[derive(Default)]
pub struct Killer {
    /// The warden's children of the round before.
    #[cfg(target_os = "linux")]
    children: Vec<i32>,
}

impl Killer {
    /// One round. Whether the next one should follow without a pause: the tree still grows.
    #[cfg(target_os = "linux")]
    pub fn round(&mut self, _leader: Pid) -> bool {
        let known = std::mem::replace(&mut self.children, process_tree::own_children());
        self.children.iter().copied().for_each(process_tree::end);
        let grows = self.children.iter().any(|child| !known.contains(child));
        if !grows {
            process_tree::descendants(own_pid()).into_iter().for_each(process_tree::end);
        }
        grows
    }

    /// One round. Whether the next one should follow without a pause.
    #[cfg(not(target_os = "linux"))]
    pub fn round(&mut self, leader: Pid) -> bool {
        let _ = killpg(leader, Signal::SIGKILL);
        false
    }
}

#[cfg(target_os = "linux")]
fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
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
        let exit = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => Some((pid, Exit::Status(status))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, Exit::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) => return reaped,
            Ok(_) | Err(Errno::EINTR) => None,
            Err(_) => {
                reaped.none_left = !others_left(leader);
                return reaped;
            }
        };
        if let Some((pid, exit)) = exit
            && pid == leader
        {
            reaped.leader = Some(exit);
        }
    }
}

/// Whether there is more to the tree than the warden's own children, when it has none any more.
#[cfg(target_os = "linux")]
fn others_left(_leader: Pid) -> bool {
    // Orphans become children of a subreaper.
    false
}

/// Whether there is more to the tree than the warden's own children, when it has none any more.
#[cfg(not(target_os = "linux"))]
fn others_left(leader: Pid) -> bool {
    killpg(leader, None).is_ok()
}
