//! The relative paths of a `pyproject.toml` that is read in another folder than its own.

use super::{paths, table_at};
use std::ops::Range;
use toml::de::{DeArray, DeTable, DeValue};

/// Puts `prefix` in front of the relative paths in a `pyproject.toml` or `uv.toml`. `prefix` is the path from the folder where
/// the text is read to the folder that it was written for.
///
/// This changes the paths of sources and workspace members, and of indexes and links that are folders. The lines of the text
/// stay the same. A text that is not TOML is returned unchanged.
///
/// ```
/// let text = "[tool.uv.sources]\nown = { path = 'own' }\n";
/// let moved = snex_core::project::rebase(text, "../app");
/// assert_eq!(moved, "[tool.uv.sources]\nown = { path = '../app/own' }\n");
/// assert_eq!(snex_core::project::unbase(&moved, "../app"), text);
/// ```
#[must_use]
pub fn rebase(text: &str, prefix: &str) -> String {
    let pattern = glob::Pattern::escape(prefix);
    map(text, |path, kind| {
        let prefix = if kind == Kind::Pattern { &pattern } else { prefix };
        paths::is_relative(path).then(|| format!("{prefix}/{path}"))
    })
}

/// Undoes [`rebase`]. Whatever has been added in the meantime stays.
#[must_use]
pub fn unbase(text: &str, prefix: &str) -> String {
    let pattern = glob::Pattern::escape(prefix);
    map(text, |path, kind| {
        let prefix = if kind == Kind::Pattern { &pattern } else { prefix };
        Some(path.strip_prefix(prefix)?.strip_prefix('/')?.to_owned())
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Path,
    /// A pattern in the syntax of the crate `glob`.
    Pattern,
}

type Paths = Vec<(Range<usize>, Kind, String)>;

fn map(text: &str, change: impl Fn(&str, Kind) -> Option<String>) -> String {
    let Ok(document) = DeTable::parse(text) else { return text.to_owned() };
    let mut paths = Vec::new();
    find(document.get_ref(), &mut paths);
    let changed = |(span, kind, path): (_, _, String)| Some((span, change(&path, kind)?));
    paths::replace(text, paths.into_iter().filter_map(changed).collect())
}

fn find(document: &DeTable, paths: &mut Paths) {
    // A uv.toml has at the top level what a pyproject.toml has in `[tool.uv]`.
    settings(document, paths);
    let Some(uv) = table_at(document, &["tool", "uv"]) else { return };
    settings(uv, paths);
    let empty = DeTable::new();
    for (_, source) in table_at(uv, &["sources"]).unwrap_or(&empty) {
        // A package has one source, or several with markers.
        for_each(source.get_ref(), |source| at(source, "path", Kind::Path, paths));
    }
    if let Some(workspace) = table_at(uv, &["workspace"]) {
        for key in ["members", "exclude"] {
            at(workspace, key, Kind::Pattern, paths);
        }
    }
}

fn settings(uv: &DeTable, paths: &mut Paths) {
    if let Some(index) = uv.get("index") {
        for_each(index.get_ref(), |index| at(index, "url", Kind::Path, paths));
    }
    for key in ["index-url", "extra-index-url", "find-links"] {
        at(uv, key, Kind::Path, paths);
    }
}

/// Calls `use_table` with a table, or with each table of an array.
fn for_each(value: &DeValue, mut use_table: impl FnMut(&DeTable)) {
    match value {
        DeValue::Table(table) => use_table(table),
        DeValue::Array(tables) => {
            tables.iter().filter_map(|value| value.get_ref().as_table()).for_each(use_table);
        }
        _ => (),
    }
}

/// Adds the value of a key to `paths`: a string, or an array of strings.
fn at(table: &DeTable, key: &str, kind: Kind, paths: &mut Paths) {
    let Some(value) = table.get(key) else { return };
    let empty = DeArray::new();
    let entries = value.get_ref().as_array().unwrap_or(&empty);
    for value in entries.iter().chain([value]) {
        if let Some(path) = value.get_ref().as_str() {
            paths.push((value.span(), kind, path.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{rebase, unbase};
    use proptest::prelude::*;

    const TEXT: &str = r#"
[tool.uv]
find-links = ["wheels", "https://example.invalid/x", "/abs", "~/home", "$HOME/x"] # 'wheels'
index-url = 'simple'
extra-index-url = []
[tool.uv.workspace]
members = ["packages/*", './b"c']
exclude = ["packages/old"]
[tool.uv.sources]
own = { path = "own", editable = true }
many = [{ path = "../linux", marker = "sys_platform == 'linux'" }, { git = "https://example.invalid/x.git" }]
member.workspace = true
[[tool.uv.index]]
name = "local"
url = "./index"
[tool.other]
path = "own"
"#;

    #[test]
    fn relative_paths_are_those_of_another_folder() {
        let wanted = TEXT
            .replace(r#"["wheels""#, r#"["../p/wheels""#)
            .replace("'simple'", "'../p/simple'")
            .replace(r#"["packages/*", './b"c']"#, r#"["../p/packages/*", '../p/./b"c']"#)
            .replace(r#""packages/old""#, r#""../p/packages/old""#)
            .replace(r#"{ path = "own""#, r#"{ path = "../p/own""#)
            .replace("../linux", "../p/../linux")
            .replace("./index", "../p/./index");
        assert_eq!(rebase(TEXT, "../p"), wanted);
        assert_eq!(unbase(&wanted, "../p"), TEXT);
        assert_eq!(rebase("not = [TOML", "../p"), "not = [TOML");
    }

    #[test]
    fn only_patterns_have_an_escaped_prefix() {
        let text = "[tool.uv]\nworkspace = { members = ['p/*'] }\nsources.own = { path = 'own' }\n";
        let wanted = "[tool.uv]\nworkspace = { members = ['../a [[]x[]]/p/*'] }\nsources.own = { path = '../a [x]/own' }\n";
        assert_eq!(rebase(text, "../a [x]"), wanted);
        assert_eq!(unbase(wanted, "../a [x]"), text);
    }

    #[test]
    fn the_settings_of_a_uv_toml() {
        let text = "find-links = ['wheels']\n[[index]]\nurl = 'index'\n";
        assert_eq!(rebase(text, ".."), "find-links = ['../wheels']\n[[index]]\nurl = '../index'\n");
    }

    #[test]
    fn what_was_added_in_between_stays() {
        let text = rebase("[tool.uv.sources]\nown = { path = 'own' }\n", "../p");
        let added = format!("{text}new = {{ path = '../p/new' }}\nfar = {{ path = '../q' }}\n");
        let wanted =
            "[tool.uv.sources]\nown = { path = 'own' }\nnew = { path = 'new' }\nfar = { path = '../q' }\n";
        assert_eq!(unbase(&added, "../p"), wanted);
    }

    proptest! {
        #[test]
        fn lines_stay_and_there_is_a_way_back(path in "[a-z.\"'\\\\\n/ä]{1,8}", prefix in "\\.\\.(/[a-z\\[' \"]{1,4}){0,3}") {
            let text = format!("[tool.uv.sources]\na = {{ path = {:?} }}\n# end\n", path);
            let moved = rebase(&text, &prefix);
            prop_assert_eq!(moved.matches('\n').count(), text.matches('\n').count());
            prop_assert_eq!(unbase(&moved, &prefix), text);
        }
    }
}
