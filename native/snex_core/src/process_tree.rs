//! Processes and their descendants, from `/proc` (proc(5)). On systems without `/proc`, and in containers that hide it, these
//! functions find nothing.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp};

/// The environment variable that marks the processes of a tree, so that they can be found after their ancestors are gone.
pub const MARK: &str = "SNEX_TREE";

/// Whether the processes of this machine can be listed.
pub fn is_listed() -> bool {
    std::path::Path::new("/proc/self/stat").exists()
}

/// All living descendants of `roots`, children before grandchildren.
pub fn descendants(roots: &[i32]) -> Vec<i32> {
    // A root may die during the search, and a descendant may get its number. It must not be found as its own descendant.
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

/// The children of this process, including zombies. Reads no other process if the kernel keeps lists of children.
pub fn own_children() -> Vec<i32> {
    let own = std::process::id() as i32;
    listed_children(own).unwrap_or_else(|| processes().filter(|pid| parent(*pid) == Some(own)).collect())
}

/// The living children of a process. Reads only these if the kernel keeps lists of children.
pub fn children(of: i32) -> Vec<i32> {
    let all = listed_children(of).unwrap_or_else(|| processes().collect());
    all.into_iter().filter(|pid| living_parent(*pid) == Some(of)).collect()
}

/// Whether a process has no children, not even zombies. `false` if the kernel keeps no lists of children. An empty list is
/// reliable, although a list that is not empty may miss some children.
pub fn is_childless(pid: i32) -> bool {
    listed_children(pid).is_some_and(|children| children.is_empty())
}

/// The children of a process, from the kernel's lists; `None` if it keeps none. Each thread has a list of its own.
fn listed_children(of: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{of}/task")).ok()? {
        let list = std::fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

/// All processes that were started with the variable [`MARK`] set to `mark`, and those that they forked. The iterator starts
/// with the youngest and searches as it is advanced, because the youngest may not live for long.
pub fn marked(mark: &str) -> impl Iterator<Item = i32> {
    let variable = format!("{MARK}={mark}");
    let mut pids: Vec<i32> = processes().collect();
    pids.sort_unstable_by(|a, b| b.cmp(a));
    pids.into_iter().filter(move |pid| {
        // Empty for a zombie, unreadable for a process of another user.
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    })
}

/// Kills a process of a tree and its whole process group, so that nothing escapes by forking at that moment. No process
/// outside the tree is in that group, because a tree has sessions of its own.
pub fn kill_with_group(pid: i32) {
    kill_sparing_group(pid, 0);
}

/// As [`kill_with_group`], for the leader of a tree. A leader that has just been forked is still in the group of its parent,
/// which belongs to another tree: then this kills the leader alone. The caller halts the leader first, so that it cannot
/// start a group of its own in the meantime.
pub fn kill_leader(pid: i32) {
    match getpgid(Some(Pid::from_raw(pid))) {
        Ok(group) if group.as_raw() != pid => kill_sparing_group(pid, group.as_raw()),
        _ => kill_with_group(pid),
    }
}

/// As [`kill_with_group`], but kills only the process if its group is `spared`.
pub fn kill_sparing_group(pid: i32, spared: i32) {
    let pid = Pid::from_raw(pid);
    // Errors are ignored: the process is gone, or belongs to another user.
    if let Ok(group) = getpgid(Some(pid))
        && group.as_raw() > 1
        && group.as_raw() != spared
        && group != getpgrp()
    {
        let _ = killpg(group, Signal::SIGKILL);
    }
    let _ = kill(pid, Signal::SIGKILL);
}

/// Resident memory of `root` and its descendants, in bytes. A page that several processes share counts for each of them.
pub fn resident_memory(root: i32) -> u64 {
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return 0 };
    let pages = |pid| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let all = std::iter::once(root).chain(descendants(&[root]));
    all.filter_map(pages).sum::<u64>() * page.unsigned_abs()
}

/// Every process that `/proc` lists.
fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The parent of a process; `None` if there is no such process.
pub fn parent(pid: i32) -> Option<i32> {
    Some(stat(pid)?.parent)
}

/// The parent of a process; `None` also for a zombie.
fn living_parent(pid: i32) -> Option<i32> {
    stat(pid).filter(|stat| !stat.zombie).map(|stat| stat.parent)
}

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// Whether it is a zombie: it has ended, and nobody has waited for it.
    zombie: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    stat_in(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Parses a line of `/proc/PID/stat`. The second field is the command in parentheses, and may contain spaces and
/// parentheses. It is followed by the state, the parent and others; the 18th after it is the number of threads.
fn stat_in(stat: &[u8]) -> Option<Stat> {
    let end_of_command = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_command + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // If only the first thread has ended, the state is that of a zombie, but the process lives.
    let threads: u64 = fields.nth(15).and_then(|field| field.parse().ok()).unwrap_or(1);
    Some(Stat { parent, zombie: matches!(state, "Z" | "X") && threads <= 1 })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_command_with_spaces_and_parentheses() {
        assert_eq!(stat_in(b"12 (a) b (c) S 345 67 12 0 -1"), Some(Stat { parent: 345, zombie: false }));
        assert_eq!(stat_in(b"12 (a) Z 345 67"), Some(Stat { parent: 345, zombie: true }));
        let threads = b"12 (a) Z 1 12 12 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0";
        assert_eq!(stat_in(threads), Some(Stat { parent: 1, zombie: false }));
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
