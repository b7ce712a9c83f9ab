//! All the processes that descend from the warden.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use snex_core::control::Exit;

/// Sends `signal` to the whole tree: every descendant, also one that left the session or whose parent is gone (the
/// warden adopts those).
#[cfg(target_os = "linux")]
pub fn signal(_leader: Pid, signal: Signal) {
    for pid in descendants() {
        // An error means that the process is gone already, or is not ours to signal; there is nobody else to try.
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

/// Sends `signal` to the group of `leader`: all that can be found of a tree without a subreaper.
#[cfg(not(target_os = "linux"))]
pub fn signal(leader: Pid, signal: Signal) {
    let _ = nix::sys::signal::killpg(leader, signal);
}

/// The process ids of all descendants, children before grandchildren.
#[cfg(target_os = "linux")]
fn descendants() -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![nix::unistd::getpid().as_raw()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).map(Pid::from_raw).collect()
}

/// Every process of the machine with its parent, from `/proc/PID/stat` (proc(5)).
#[cfg(target_os = "linux")]
fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            Some((pid, parent_in_stat(&stat)?))
        })
        .collect()
}

/// The parent's id in a line of `/proc/PID/stat`: the second field after the command, which stands in parentheses and
/// may itself contain spaces and parentheses.
#[cfg(target_os = "linux")]
fn parent_in_stat(stat: &[u8]) -> Option<i32> {
    let end_of_command = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_command + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_command_with_spaces_and_parentheses() {
        assert_eq!(parent_in_stat(b"12 (a) b (c) S 345 12 12 0 -1"), Some(345));
        assert_eq!(parent_in_stat(b"12 (cut"), None);
    }

    #[test]
    fn every_process_has_a_parent_in_the_table() {
        let me = std::process::id() as i32;
        let parent = nix::unistd::getppid().as_raw();
        assert!(parents().contains(&(me, parent)));
    }
}
