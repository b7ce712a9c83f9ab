//! Processes and their descendants, from `/proc` (proc(5)). Linux only.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};
use std::collections::BTreeSet;

/// The environment variable by which a tree's processes are found when nobody is left whose descendants they are.
pub const MARK: &str = "SNEX_TREE";

/// A process, as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// The id of its process group.
    pub group: i32,
}

/// All descendants of `root`, children before grandchildren.
pub fn descendants(root: i32) -> Vec<Process> {
    let all = processes();
    let mut parents = vec![root];
    let mut found = Vec::new();
    let mut next = 0;
    while let Some(parent) = parents.get(next).copied() {
        let children = all.iter().filter(|process| process.parent == parent);
        found.extend(children.inspect(|child| parents.push(child.pid)));
        next += 1;
    }
    found
}

/// The children of this process, those included that have ended and have not been waited for. Only of a process with one
/// thread, and found without a look at any other process. Empty where the kernel has no such list.
pub fn own_children() -> Vec<Process> {
    let parent = nix::unistd::getpid();
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let process = |pid: i32| {
        let group = getpgid(Some(Pid::from_raw(pid))).ok()?;
        Some(Process { pid, parent: parent.as_raw(), group: group.as_raw() })
    };
    list.split_ascii_whitespace().filter_map(|pid| process(pid.parse().ok()?)).collect()
}

/// All processes that have been started with the variable [`MARK`] set to `mark`, and their children by `fork`.
pub fn marked(mark: &str) -> Vec<Process> {
    let variable = format!("{MARK}={mark}");
    let has_mark = |process: &Process| {
        // Empty for a process that has ended, unreadable for one of another user.
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    processes().into_iter().filter(has_mark).collect()
}

/// Kills processes of a tree, with all of their process groups: a group is killed as a whole, so that nothing escapes by
/// forking at that moment. The tree has sessions, and so groups, of its own.
pub fn kill_all(processes: &[Process]) {
    let own = getpgrp().as_raw();
    let groups: BTreeSet<i32> = processes.iter().map(|process| process.group).collect();
    // An error means that all are gone already, or are not ours to signal; there is nobody else to try.
    for group in groups.into_iter().filter(|group| *group > 1 && *group != own) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    for process in processes {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}

/// Resident memory of `root` and its descendants, in bytes; pages that processes share count for each.
pub fn resident_memory(root: i32) -> u64 {
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return 0 };
    let pages = |pid| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let all = std::iter::once(root).chain(descendants(root).into_iter().map(|process| process.pid));
    all.filter_map(pages).sum::<u64>() * page.unsigned_abs()
}

/// Every process of the machine.
fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            let (parent, group) = parent_and_group(&stat)?;
            Some(Process { pid, parent, group })
        })
        .collect()
}

/// The ids of parent and process group in a line of `/proc/PID/stat`: the second and third field after the command, which
/// stands in parentheses and may itself contain spaces and parentheses.
fn parent_and_group(stat: &[u8]) -> Option<(i32, i32)> {
    let end_of_command = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_command + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn parent_and_group_are_found_behind_a_command_with_spaces_and_parentheses() {
        assert_eq!(parent_and_group(b"12 (a) b (c) S 345 67 12 0 -1"), Some((345, 67)));
        assert_eq!(parent_and_group(b"12 (cut"), None);
    }

    #[test]
    fn children_and_grandchildren_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        let found: Vec<i32> =
            descendants(std::process::id() as i32).iter().map(|process| process.pid).collect();
        assert!(found.contains(&(child.id() as i32)) && found.contains(&grandchild), "{found:?}");
        assert!(resident_memory(child.id() as i32) > resident_memory(grandchild));
        let kill =
            |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        kill(grandchild).unwrap();
        child.wait().unwrap();
    }
}
