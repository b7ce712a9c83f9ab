//! Reads a `pyproject.toml` as far as that is possible without uv, and reports mistakes with their places.
//!
//! Libraries parse TOML and versions. Dependency strings are for uv to check. Here only their places are recorded, so that uv's
//! errors about them can be shown where they were written.

mod check;
mod lock;
mod member;
mod paths;
mod rebase;

pub use lock::{Local, locals, rebase as rebase_lock};
pub use member::has_member;
pub use rebase::{rebase, unbase};

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and its place in the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At<T> {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The value.
    pub value: T,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The table; empty for the top level.
    pub table: &'static str,
    /// The key itself.
    pub name: String,
}

/// The table `tool.uv.workspace` of a project. Both fields are patterns of folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workspace {
    /// Folders that are members.
    pub members: Vec<String>,
    /// Folders that are not members, although a pattern in `members` matches them.
    pub exclude: Vec<String>,
}

/// What [`read`] has found in a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// All mistakes, each with what would be right.
    pub problems: Vec<At<String>>,
    /// The keys at the top level and in `[project]`.
    pub keys: Vec<At<Key>>,
    /// Dependency strings, including those of extras and groups.
    pub dependencies: Vec<At<String>>,
    /// The project's name.
    pub name: Option<String>,
    /// The workspace, if the project is the root of one.
    pub workspace: Option<Workspace>,
}

/// Reads the text of a `pyproject.toml`.
///
/// ```
/// let text = b"[project]\nname = 'a'\nversion = '1'\nrequires-python = '3.10'\n";
/// let problem = &snex_core::project::read(text).problems[0];
/// assert_eq!((problem.line, problem.column), (4, 20));
/// assert!(problem.value.contains("`3.10` is one version"));
/// ```
#[must_use]
pub fn read(text: &[u8]) -> Report {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            // The mistake is where the valid part ends.
            let good = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            let problems = locate(&good, vec![(good.len(), "this is not UTF-8".to_owned())]);
            return Report { problems, ..Report::default() };
        }
    };
    let mut found = Found::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    // If the text is not TOML, the parser recovers as well as it can. Checking the result could report mistakes that nobody made.
    if errors.is_empty() {
        found.document(document.get_ref());
    }
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        found.add(at, format!("this is not TOML: {}", error.message().replace('\n', ", ")));
    }
    Report {
        problems: locate(text, found.problems),
        keys: locate(text, found.keys),
        dependencies: locate(text, found.dependencies),
        name: found.name,
        workspace: found.workspace,
    }
}

/// Sorts items by offset, and turns the offsets into lines and columns.
fn locate<T: Ord>(text: &str, mut items: Vec<(usize, T)>) -> Vec<At<T>> {
    items.sort();
    let (mut line, mut column, mut done) = (1, 1, 0);
    let mut located = Vec::with_capacity(items.len());
    for (at, value) in items {
        let at = text.floor_char_boundary(at);
        for c in text[done..at].chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        done = at;
        located.push(At { line, column, value });
    }
    located
}

type Value<'a> = Spanned<DeValue<'a>>;

/// What has been found so far. Numbers are offsets in bytes.
struct Found<'a> {
    text: &'a str,
    problems: Vec<(usize, String)>,
    keys: Vec<(usize, Key)>,
    dependencies: Vec<(usize, String)>,
    name: Option<String>,
    workspace: Option<Workspace>,
}

impl<'t> Found<'t> {
    fn new(text: &'t str) -> Self {
        Found {
            text,
            problems: Vec::new(),
            keys: Vec::new(),
            dependencies: Vec::new(),
            name: None,
            workspace: None,
        }
    }

    fn add(&mut self, at: usize, message: impl Into<String>) {
        self.problems.push((at, message.into()));
    }

    fn document(&mut self, document: &DeTable) {
        self.keys("", document);
        self.workspace = workspace(document);
        match document.get("project") {
            None => self.add(
                0,
                "there is no table [project]; it needs name, version and requires-python, \
                 and has the dependencies",
            ),
            Some(project) => {
                if let Some(table) = self.table("project", project) {
                    self.project(table, project.span());
                }
            }
        }
        if let Some(groups) = document.get("dependency-groups")
            && let Some(groups) = self.table("dependency-groups", groups)
        {
            for (name, entries) in groups {
                self.key("dependency-groups", name);
                self.group(&format!("dependency-groups.{}", name.get_ref()), entries);
            }
        }
    }

    fn project(&mut self, project: &DeTable, place: Range<usize>) {
        self.keys("project", project);
        self.name = project.get("name").and_then(|name| name.get_ref().as_str()).map(str::to_owned);
        match project.get("name") {
            None => self.add(place.start, "project.name is not there; as in: name = \"my-app\""),
            Some(name) => self.string("project.name", name, check::name),
        }
        let dynamic = self.dynamic(project);
        match project.get("version") {
            None if dynamic => (),
            None => self.add(place.start, "project.version is not there; version = \"0.0.0\" will do"),
            Some(version) => self.string("project.version", version, check::version),
        }
        match project.get("requires-python") {
            None => self.add(
                place.start,
                "project.requires-python is not there, which says what Pythons this is for; \
                 as in: requires-python = \">=3.10\"",
            ),
            Some(python) => self.string("project.requires-python", python, check::python),
        }
        if let Some(dependencies) = project.get("dependencies") {
            self.requirements("project.dependencies", dependencies);
        }
        if let Some(extras) = project.get("optional-dependencies")
            && let Some(extras) = self.table("project.optional-dependencies", extras)
        {
            for (name, entries) in extras {
                self.key("project.optional-dependencies", name);
                self.requirements(&format!("project.optional-dependencies.{}", name.get_ref()), entries);
            }
        }
    }

    /// Whether `project.dynamic` lists the version, which then may be missing here.
    fn dynamic(&mut self, project: &DeTable) -> bool {
        let Some(dynamic) = project.get("dynamic") else { return false };
        let Some(fields) = self.array("project.dynamic", dynamic) else { return false };
        let mut version = false;
        for (index, field) in fields.iter().enumerate() {
            self.string(&format!("project.dynamic[{index}]"), field, check::any);
            version |= field.get_ref().as_str() == Some("version");
        }
        version
    }

    fn requirements(&mut self, name: &str, value: &Value) {
        let Some(entries) = self.array(name, value) else { return };
        for (index, entry) in entries.iter().enumerate() {
            self.dependency(&format!("{name}[{index}]"), entry);
        }
    }

    fn dependency(&mut self, name: &str, value: &Value) {
        self.string(name, value, check::any);
        if let Some(text) = value.get_ref().as_str() {
            self.dependencies.push((place_in(self.text, value.span(), text), text.to_owned()));
        }
    }

    /// Checks a dependency group. An entry is a requirement, or includes another group: `{include-group = "other"}`.
    fn group(&mut self, name: &str, value: &Value) {
        let Some(entries) = self.array(name, value) else { return };
        for (index, entry) in entries.iter().enumerate() {
            let name = format!("{name}[{index}]");
            let DeValue::Table(table) = entry.get_ref() else {
                self.dependency(&name, entry);
                continue;
            };
            match table.get("include-group") {
                Some(group) if table.len() == 1 => {
                    self.string(&format!("{name}.include-group"), group, check::name);
                }
                _ => self.add(
                    entry.span().start,
                    format!(
                        "{name} is a table that Snex does not know; known is {{include-group = \"name\"}}"
                    ),
                ),
            }
        }
    }

    fn keys(&mut self, table: &'static str, content: &DeTable) {
        self.keys.extend(
            content
                .keys()
                .map(|key| (key.span().start, Key { table, name: key.get_ref().clone().into_owned() })),
        );
    }

    fn key(&mut self, table: &str, key: &Spanned<std::borrow::Cow<str>>) {
        if let Err(mistake) = check::name(key.get_ref()) {
            self.add(key.span().start, format!("{table}: {mistake}"));
        }
    }

    fn table<'v, 'a>(&mut self, name: &str, value: &'v Value<'a>) -> Option<&'v DeTable<'a>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_type(name, value, "a table");
        }
        table
    }

    fn array<'v, 'a>(&mut self, name: &str, value: &'v Value<'a>) -> Option<&'v [Value<'a>]> {
        let array = value.get_ref().as_array();
        if array.is_none() {
            self.wrong_type(name, value, "an array of strings, in brackets,");
        }
        array.map(|array| &array[..])
    }

    /// Checks a value that has to be a string.
    fn string(&mut self, name: &str, value: &Value, check: impl FnOnce(&str) -> Result<(), String>) {
        let Some(string) = value.get_ref().as_str() else {
            return self.wrong_type(name, value, "a string, in quotes,");
        };
        if let Err(mistake) = check(string) {
            self.add(place_in(self.text, value.span(), string), format!("{name}: {mistake}"));
        }
    }

    fn wrong_type(&mut self, name: &str, value: &Value, wanted: &str) {
        let is = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.add(value.span().start, format!("{name} is {is}, where {wanted} is wanted"));
    }
}

/// The offset of a string's content, behind the opening quote. For a string with escapes, the offset of the quote.
fn place_in(text: &str, span: Range<usize>, string: &str) -> usize {
    text.get(span.clone())
        .and_then(|raw| raw.find(string))
        .filter(|_| !string.is_empty())
        .map_or(span.start, |start| span.start + start)
}

fn workspace(document: &DeTable) -> Option<Workspace> {
    let workspace = table_at(document, &["tool", "uv", "workspace"])?;
    let strings = |key: &str| -> Vec<String> {
        let entries = workspace.get(key).and_then(|value| value.get_ref().as_array());
        let entries = entries.map_or(&[][..], |entries| &entries[..]);
        entries.iter().filter_map(|entry| entry.get_ref().as_str()).map(str::to_owned).collect()
    };
    Some(Workspace { members: strings("members"), exclude: strings("exclude") })
}

fn table_at<'v, 'a>(document: &'v DeTable<'a>, path: &[&str]) -> Option<&'v DeTable<'a>> {
    path.iter().try_fold(document, |table, key| table.get(*key)?.get_ref().as_table())
}

#[cfg(test)]
mod tests;
