//! Reads and rewrites pyproject.toml and uv.lock; see `snex_core::project`.

use rustler::{Binary, NifMap};
use snex_core::project::{self, At};

/// A line, a column, and what is there.
type Place<T> = (usize, usize, T);

/// Documented at `Snex.Native.project_read/1`.
#[derive(NifMap)]
#[rustler(encode)]
struct Report {
    problems: Vec<Place<String>>,
    keys: Vec<Place<(String, String)>>,
    dependencies: Vec<Place<String>>,
    name: Option<String>,
    workspace: Option<(Vec<String>, Vec<String>)>,
}

fn places<T, U>(items: Vec<At<T>>, value: impl Fn(T) -> U) -> Vec<Place<U>> {
    items.into_iter().map(|item| (item.line, item.column, value(item.value))).collect()
}

/// On a dirty scheduler: the text may be of any length.
#[rustler::nif(schedule = "DirtyCpu")]
fn project_read(toml: Binary<'_>) -> Report {
    let report = project::read(toml.as_slice());
    Report {
        problems: places(report.problems, |problem| problem),
        keys: places(report.keys, |key| (key.table.to_owned(), key.name)),
        dependencies: places(report.dependencies, |dependency| dependency),
        name: report.name,
        workspace: report.workspace.map(|workspace| (workspace.members, workspace.exclude)),
    }
}

/// On a dirty scheduler, as are all below: the text may be of any length.
#[rustler::nif(schedule = "DirtyCpu")]
fn project_rebase(toml: &str, prefix: &str) -> String {
    project::rebase(toml, prefix)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn project_unbase(toml: &str, prefix: &str) -> String {
    project::unbase(toml, prefix)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn project_has_member(root: Binary<'_>, way: &str) -> bool {
    project::has_member(root.as_slice(), way)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn lock_locals(lock: &str) -> Vec<(String, String)> {
    project::locals(lock).into_iter().map(|local| (local.name, local.folder)).collect()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn lock_rebase(lock: &str, from: &str, to: &str) -> String {
    project::rebase_lock(lock, from, to)
}
