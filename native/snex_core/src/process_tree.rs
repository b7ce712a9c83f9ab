//! Processes and their descendants, from `/proc` (proc(5)). Other systems have no such list, nor has a container that hides
//! it: there nothing is found.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

/// The environment variable by which a tree's processes are found when nobody is left whose descendants they are.
pub const MARK: &str = "SNEX_TREE";

/// Whether the processes of this machine can be listed at all.
pub fn is_listed() -> bool {
    std::path::Path::new("/proc/self/stat").exists()
}

/// All living descendants of `roots`, children before grandchildren.
pub fn descendants(roots: &[i32]) -> Vec<i32> {
    // The look takes a while: its own ancestor may be gone, and have left its number to a descendant.
    let others = processes().filter(|pid| !roots.contains(pid));
    let all: Vec<(i32, i32)> = others.filter_map(|pid| Some((pid, living_parent(pid)?))).collect();
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|process| process.1 == parent).map(|process| process.0));
        next += 1;
    }
    found.split_off(roots.len())
}

/// The children of this process, those included that have ended and have not been waited for. Found without a look at any other
/// process where the kernel has such a list.
pub fn own_children() -> Vec<i32> {
    let own = std::process::id() as i32;
    listed_children(own).unwrap_or_else(|| processes().filter(|pid| parent(*pid) == Some(own)).collect())
}

/// The living children of a process, found as [`own_children`] are.
pub fn children(of: i32) -> Vec<i32> {
    let all = listed_children(of).unwrap_or_else(|| processes().collect());
    all.into_iter().filter(|pid| living_parent(*pid) == Some(of)).collect()
}

/// Whether a process has no children at all, not even such as have ended and have not been waited for. `false` where the kernel has no
/// list of them. The list is empty only if there was no child at that moment, although a longer one may lack some.
pub fn is_childless(pid: i32) -> bool {
    listed_children(pid).is_some_and(|children| children.is_empty())
}

/// Each thread of a process has children of its own.
fn listed_children(of: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{of}/task")).ok()? {
        let list = std::fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

/// All processes that have been started with the variable [`MARK`] set to `mark`, and their children by `fork`. The youngest
/// come first, each when it has been found: those may not live for long.
pub fn marked(mark: &str) -> impl Iterator<Item = i32> {
    let variable = format!("{MARK}={mark}");
    let mut pids: Vec<i32> = processes().collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.into_iter().filter(move |pid| {
        // Empty for a process that has ended, unreadable for one of another user.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    })
}

/// Kills a process of a tree, with its whole process group, so that nothing escapes by forking at that moment. The tree has
/// sessions, and so groups, of its own.
pub fn end(pid: i32) {
    end_but(pid, 0);
}

/// As [`end`], for the leader of a tree. One that has just been forked is still in the group of what has forked it, which is another
/// tree's: then that one alone is killed. To be halted before, so that it does not start a group of its own meanwhile.
pub fn end_leader(pid: i32) {
    match getpgid(Some(Pid::from_raw(pid))) {
        Ok(group) if group.as_raw() != pid => end_but(pid, group.as_raw()),
        _ => end(pid),
    }
}

/// As [`end`], but the process group `spared` is not killed as a whole.
pub fn end_but(pid: i32, spared: i32) {
    let pid = Pid::from_raw(pid);
    // An error means that it is gone already, or is not ours to signal; there is nobody else to try.
    if let Ok(group) = getpgid(Some(pid))
        && group.as_raw() > 1
        && group.as_raw() != spared
        && group != getpgrp()
    {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let _ = kill(pid, Signal::SIGKILL);
}

/// Resident memory of `root` and its descendants, in bytes; pages that processes share count for each.
pub fn resident_memory(root: i32) -> u64 {
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return 0 };
    let pages = |pid| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let all = std::iter::once(root).chain(descendants(&[root]));
    all.filter_map(pages).sum::<u64>() * page.unsigned_abs()
}

/// Every process of the machine.
fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The parent of a process; `None` when there is no such process.
pub fn parent(pid: i32) -> Option<i32> {
    Some(stat(pid)?.parent)
}

/// The same, `None` also for one that has ended and has not been waited for.
fn living_parent(pid: i32) -> Option<i32> {
    stat(pid).filter(|stat| !stat.ended).map(|stat| stat.parent)
}

/// What is of interest in a line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// It has ended and has not been waited for.
    ended: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    stat_in(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The fields come after the command, which stands in parentheses and may itself contain spaces and parentheses: the state,
/// the parent, and as the 18th the number of threads.
fn stat_in(stat: &[u8]) -> Option<Stat> {
    let end_of_command = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_command + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // Of a process whose first thread has ended, others may run.
    let threads: u64 = fields.nth(15).and_then(|field| field.parse().ok()).unwrap_or(1);
    Some(Stat { parent, ended: matches!(state, "Z" | "X") && threads <= 1 })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_command_with_spaces_and_parentheses() {
        assert_eq!(stat_in(b"12 (a) b (c) S 345 67 12 0 -1"), Some(Stat { parent: 345, ended: false }));
        assert_eq!(stat_in(b"12 (a) Z 345 67"), Some(Stat { parent: 345, ended: true }));
        let threads = b"12 (a) Z 1 12 12 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0";
        assert_eq!(stat_in(threads), Some(Stat { parent: 1, ended: false }));
        assert_eq!(stat_in(b"12 (cut"), None);
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
        let found = descendants(&[std::process::id() as i32]);
        assert!(found.contains(&(child.id() as i32)) && found.contains(&grandchild), "{found:?}");
        assert_eq!(children(child.id() as i32), [grandchild]);
        assert!(own_children().contains(&(child.id() as i32)));
        assert!(resident_memory(child.id() as i32) > resident_memory(grandchild));
        let kill =
            |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        kill(grandchild).unwrap();
        child.wait().unwrap();
    }
}
