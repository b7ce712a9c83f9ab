//! Processes and their descendants, from `/proc` (proc(5)). Linux only.

/// The process ids of all descendants of `root`, children before grandchildren.
pub fn descendants(root: i32) -> Vec<i32> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, ppid)| *ppid == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Resident memory of `root` and its descendants, in bytes; pages that processes share count for each.
pub fn resident_memory(root: i32) -> u64 {
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return 0 };
    let pages = |pid| {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let all = std::iter::once(root).chain(descendants(root));
    all.filter_map(pages).sum::<u64>() * page.unsigned_abs()
}

/// Every process of the machine with its parent.
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
fn parent_in_stat(stat: &[u8]) -> Option<i32> {
    let end_of_command = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_command + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
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
        let found = descendants(std::process::id() as i32);
        assert!(found.contains(&(child.id() as i32)) && found.contains(&grandchild), "{found:?}");
        assert!(resident_memory(child.id() as i32) > resident_memory(grandchild));
        let kill =
            |pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        kill(grandchild).unwrap();
        child.wait().unwrap();
    }
}
