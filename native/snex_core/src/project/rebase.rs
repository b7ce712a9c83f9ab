//! Relative paths of a project whose `pyproject.toml` is read in another folder than its own.

use super::table_at;
use std::ops::Range;
use toml::de::{DeArray, DeTable, DeValue};

/// The text with its relative paths behind `prefix`, the way from the folder where it is read to the one that it was written
/// for. These are the paths of sources and workspace members, and of indexes and links that are folders. Lines stay what
/// they are. A text that is not TOML is returned as it is.
///
/// ```
/// let text = "[tool.uv.sources]\nown = { path = 'own' }\n";
/// let moved = snex_core::project::rebase(text, "../app");
/// assert_eq!(moved, "[tool.uv.sources]\nown = { path = \"../app/own\" }\n");
/// ```
#[must_use]
pub fn rebase(text: &str, prefix: &str) -> String {
    let Ok(document) = DeTable::parse(text) else { return text.to_owned() };
    let mut paths = Vec::new();
    find(document.get_ref(), &mut paths);
    paths.sort_by_key(|(span, _)| span.start);
    let mut moved = String::with_capacity(text.len());
    let mut done = 0;
    for (span, path) in paths {
        let (Some(between), true) =
            (text.get(done..span.start), text.get(span.clone()).is_some_and(one_line))
        else {
            continue;
        };
        moved.push_str(between);
        moved.push_str(&quoted(&format!("{prefix}/{path}")));
        done = span.end;
    }
    moved.push_str(&text[done..]);
    moved
}

/// A string over several lines is no path that anybody writes, and replacing it would move the lines behind it.
fn one_line(raw: &str) -> bool {
    !raw.contains('\n')
}

/// A string without control characters, as TOML has it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

type Paths = Vec<(Range<usize>, String)>;

fn find(document: &DeTable, paths: &mut Paths) {
    let Some(uv) = table_at(document, &["tool", "uv"]) else { return };
    let empty = DeTable::new();
    for (_, source) in table_at(uv, &["sources"]).unwrap_or(&empty) {
        // One source, or several with markers.
        for_each(source.get_ref(), |source| at(source, "path", paths));
    }
    if let Some(workspace) = table_at(uv, &["workspace"]) {
        for key in ["members", "exclude"] {
            at(workspace, key, paths);
        }
    }
    if let Some(index) = uv.get("index") {
        for_each(index.get_ref(), |index| at(index, "url", paths));
    }
    for key in ["index-url", "extra-index-url", "find-links"] {
        at(uv, key, paths);
    }
}

/// Calls `use_table` with a table, or with each of an array.
fn for_each(value: &DeValue, mut use_table: impl FnMut(&DeTable)) {
    match value {
        DeValue::Table(table) => use_table(table),
        DeValue::Array(tables) => {
            tables.iter().filter_map(|value| value.get_ref().as_table()).for_each(use_table);
        }
        _ => (),
    }
}

/// The relative paths of a key: a string, or an array of them.
fn at(table: &DeTable, key: &str, paths: &mut Paths) {
    let Some(value) = table.get(key) else { return };
    let empty = DeArray::new();
    let entries = value.get_ref().as_array().unwrap_or(&empty);
    for value in entries.iter().chain([value]) {
        if let Some(path) = value.get_ref().as_str()
            && !path.starts_with(['/', '~', '$'])
            && !path.contains(|c: char| c == ':' || c.is_control())
            && !path.is_empty()
        {
            paths.push((value.span(), path.to_owned()));
        }
    }
}
