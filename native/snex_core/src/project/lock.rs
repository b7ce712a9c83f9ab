//! The packages of a `uv.lock` that are installed from folders, and the relative paths of a lock.

use super::paths;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A package that is installed from a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// The folder. A relative path starts from the folder of the lock.
    pub folder: String,
}

/// The kinds of sources that are folders.
const FOLDERS: [&str; 3] = ["directory", "editable", "virtual"];

/// The packages that are installed from folders, except the one in the lock's own folder. Empty if the text is not TOML.
///
/// ```
/// let lock = "[[package]]\nname = 'own'\nsource = { editable = '../own' }\n";
/// assert_eq!(snex_core::project::locals(lock)[0].folder, "../own");
/// ```
#[must_use]
pub fn locals(lock: &str) -> Vec<Local> {
    let Ok(document) = DeTable::parse(lock) else { return Vec::new() };
    let packages = document.get_ref().get("package").and_then(|packages| packages.get_ref().as_array());
    packages
        .into_iter()
        .flat_map(|packages| packages.iter())
        .filter_map(|package| local(package.get_ref()))
        .collect()
}

fn local(package: &DeValue) -> Option<Local> {
    let name = package.get("name")?.get_ref().as_str()?;
    let source = package.get("source")?.get_ref().as_table()?;
    let folder = FOLDERS.iter().find_map(|key| source.get(*key)?.get_ref().as_str())?;
    (folder != ".").then(|| Local { name: name.to_owned(), folder: folder.to_owned() })
}

/// Rewrites the relative paths of a lock, which start from the folder `from`, so that they start from the folder `to`. Both
/// folders are absolute paths.
///
/// The path `.` stays: it is the project itself, which moves with its lock. A package whose folder is `to` gets the path `./`,
/// so that it can be told from the project. A text that is not TOML is returned unchanged.
///
/// ```
/// let lock = "source = { editable = \"own\" }\n";
/// let moved = snex_core::project::rebase_lock(lock, "/app", "/app/_build");
/// assert_eq!(moved, "source = { editable = \"../own\" }\n");
/// assert_eq!(snex_core::project::rebase_lock(&moved, "/app/_build", "/app"), lock);
/// ```
#[must_use]
pub fn rebase(lock: &str, from: &str, to: &str) -> String {
    let Ok(document) = DeTable::parse(lock) else { return lock.to_owned() };
    let mut places = Vec::new();
    find(document.get_ref(), &mut |span, path| {
        let way = paths::way(path, from, to);
        places.push((span, if way == "." { "./".to_owned() } else { way }));
    });
    paths::replace(lock, places)
}

/// Calls `found` with each relative path in a table, and with its place.
fn find(table: &DeTable, found: &mut impl FnMut(Range<usize>, &str)) {
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            // The files of an index that is a folder. Their paths start from that folder, so they stay.
            ("wheels" | "sdist", _) => (),
            ("directory" | "editable" | "virtual" | "path" | "registry", DeValue::String(path)) => {
                if path != "." && paths::is_relative(path) {
                    found(value.span(), path);
                }
            }
            (_, value) => below(value, found),
        }
    }
}

fn below(value: &DeValue, found: &mut impl FnMut(Range<usize>, &str)) {
    match value {
        DeValue::Table(table) => find(table, found),
        DeValue::Array(array) => array.iter().for_each(|value| below(value.get_ref(), found)),
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::{Local, locals, rebase};

    const LOCK: &str = r#"
version = 1
[manifest]
members = ["app", "own"]
overrides = [{ name = "over", path = "over.whl" }]
[[package]]
name = "app"
source = { virtual = "." }
dependencies = [{ name = "own", source = { editable = "packages/own" } }]
[package.metadata]
requires-dist = [{ name = "own", editable = "packages/own" }]
[package.metadata.requires-dev]
dev = [{ name = "plain", directory = "../plain" }]
[[package]]
name = "iniconfig"
source = { registry = "https://example.invalid/simple" }
wheels = [{ url = "https://example.invalid/iniconfig.whl" }]
[[package]]
name = "pluggy"
source = { registry = "wheels" }
wheels = [{ path = "pluggy.whl" }]
[[package]]
name = "own"
source = { editable = "packages/own" }
[[package]]
name = "plain"
source = { directory = "../plain" }
[[package]]
name = "far"
source = { directory = "/opt/far" }
"#;

    #[test]
    fn packages_of_folders() {
        let found: Vec<_> =
            locals(LOCK).into_iter().map(|Local { name, folder }| format!("{name} {folder}")).collect();
        assert_eq!(found, ["own packages/own", "plain ../plain", "far /opt/far"]);
        assert_eq!(locals("not = [TOML"), []);
        assert_eq!(locals("package = 1\n"), []);
        assert_eq!(locals("[[package]]\nname = 1\n[[package]]\nsource = 'x'\n"), []);
    }

    #[test]
    fn paths_are_those_of_another_folder() {
        let wanted = LOCK
            .replace("\"packages/own\"", "\"../../packages/own\"")
            .replace("\"../plain\"", "\"../../../plain\"")
            .replace("\"over.whl\"", "\"../../over.whl\"")
            .replace("registry = \"wheels\"", "registry = \"../../wheels\"");
        assert_eq!(rebase(LOCK, "/app", "/app/_build/x"), wanted);
        assert_eq!(rebase(&wanted, "/app/_build/x", "/app"), LOCK);
        assert_eq!(rebase("not = [TOML", "/a", "/b"), "not = [TOML");
    }

    #[test]
    fn a_package_in_the_folder_itself_is_told_from_the_project() {
        let lock = "a = { virtual = \".\" }\nb = { editable = \"../..\" }\n";
        let moved = rebase(lock, "/app/_build/x", "/app");
        assert_eq!(moved, "a = { virtual = \".\" }\nb = { editable = \"./\" }\n");
        assert_eq!(rebase(&moved, "/app", "/app/_build/x"), lock);
    }
}
