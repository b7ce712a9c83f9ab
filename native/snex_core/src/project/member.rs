//! The members of a workspace.

use super::{Workspace, read};
use glob::Pattern;

/// Whether a folder is a member of the workspace whose root has this `pyproject.toml`. `way` is the folder's path from the root.
///
/// ```
/// let root = "[tool.uv.workspace]\nmembers = ['packages/*']\nexclude = ['packages/old']\n";
/// assert!(snex_core::project::has_member(root.as_bytes(), "packages/own"));
/// assert!(!snex_core::project::has_member(root.as_bytes(), "packages/old"));
/// ```
#[must_use]
pub fn has_member(root: &[u8], way: &str) -> bool {
    read(root)
        .workspace
        .is_some_and(|Workspace { members, exclude }| any(&members, way) && !any(&exclude, way))
}

/// Whether a pattern matches. This uses the same library for patterns as uv, so that both find the same members.
fn any(patterns: &[String], way: &str) -> bool {
    patterns.iter().any(|pattern| {
        let pattern = pattern.trim_start_matches("./").trim_end_matches('/');
        Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(way))
    })
}

#[cfg(test)]
mod tests {
    use super::has_member;

    #[test]
    fn members() {
        let root =
            |members: &str| format!("[tool.uv.workspace]\nmembers = [{members}]\nexclude = ['x/[a-c]']\n");
        for (members, way, wanted) in [
            ("'own'", "own", true),
            ("'./own/'", "own", true),
            ("'own'", "other", false),
            ("'p/*', 'q/*'", "q/ä [b]", true),
            ("'x/*'", "x/b", false),
            ("'x/*'", "x/d", true),
            ("'**'", "a/b", true),
            ("'[', 'own'", "own", true),
            ("", "own", false),
        ] {
            assert_eq!(has_member(root(members).as_bytes(), way), wanted, "{members} {way}");
        }
        assert!(!has_member(b"[project]\n", "own"));
        assert!(!has_member(b"[", "own"));
    }
}
