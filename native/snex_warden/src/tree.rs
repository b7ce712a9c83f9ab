//! All the processes that descend from the warden.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use snex_core::control::Exit;
#[cfg(target_os = "linux")]
use snex_core::process_tree;

/// Sends `signal` to the whole tree: every descendant, also one that left the session or whose parent is gone (the
/// warden adopts those).
#[cfg(target_os = "linux")]
pub fn signal(_leader: Pid, signal: Signal) {
    let tree = process_tree::descendants(nix::unistd::getpid().as_raw());
    if signal == Signal::SIGKILL {
        process_tree::kill_all(&tree);
        return;
    }
    for process in tree {
        // An error means that the process is gone already, or is not ours to signal; there is nobody else to try.
        let _ = nix::sys::signal::kill(Pid::from_raw(process.pid), signal);
    }
}

/// Sends `signal` to the group of `leader`: all that can be found of a tree without a subreaper.
#[cfg(not(target_os = "linux"))]
pub fn signal(leader: Pid, signal: Signal) {
    let _ = nix::sys::signal::killpg(leader, signal);
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
    nix::sys::signal::killpg(leader, None).is_ok()
}
