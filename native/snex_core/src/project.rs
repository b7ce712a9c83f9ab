//! What a `pyproject.toml` has to have before it is worth starting uv.
//!
//! All mistakes are found at once, each with its place in the text. What takes more than the
//! text to know is left to uv.

pub mod requirement;
pub mod version;

use requirement::Mistake;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something that is wrong with the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// Looks for mistakes in the text of a `pyproject.toml`.
///
/// ```
/// let problems = snex_core::project::check(b"[project]\nname = 'a'\nversion = '1'\nrequires-python = '3.10'\n");
/// assert_eq!((problems[0].line, problems[0].column), (4, 20));
/// assert!(problems[0].message.contains("`3.10` has no operator in front"));
/// ```
#[must_use]
pub fn check(text: &[u8]) -> Vec<Problem> {
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            // What is good so far tells the place.
            let good = String::from_utf8_lossy(&text[..error.valid_up_to()]);
            return locate(&good, vec![(good.len(), "this is not UTF-8".to_owned())]);
        }
    };
    let mut found = Found { text, problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    // Of a text that is not TOML, the parser makes what it can: mistakes in that may not be the writer's.
    if errors.is_empty() {
        found.document(document.get_ref());
    }
    for error in errors {
        let at = error.span().map_or(text.len(), |span| span.start);
        found.add(at, format!("this is not TOML: {}", error.message().replace('\n', ", ")));
    }
    locate(text, found.problems)
}

/// From offsets to lines and columns, in order.
fn locate(text: &str, mut problems: Vec<(usize, String)>) -> Vec<Problem> {
    problems.sort();
    let (mut line, mut column, mut done) = (1, 1, 0);
    let mut located = Vec::with_capacity(problems.len());
    for (at, message) in problems {
        let at = text.floor_char_boundary(at);
        for c in text[done..at].chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        done = at;
        located.push(Problem { line, column, message });
    }
    located
}

type Value<'a> = Spanned<DeValue<'a>>;

struct Found<'a> {
    text: &'a str,
    /// Each at an offset in bytes.
    problems: Vec<(usize, String)>,
}

impl Found<'_> {
    fn add(&mut self, at: usize, message: impl Into<String>) {
        self.problems.push((at, message.into()));
    }

    fn document(&mut self, document: &DeTable) {
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
        match project.get("name") {
            None => self.add(place.start, "project.name is not there; as in: name = \"my-app\""),
            Some(name) => self.string("project.name", name, requirement::check_name),
        }
        let dynamic = self.dynamic(project);
        match project.get("version") {
            None if dynamic => (),
            None => self.add(place.start, "project.version is not there; version = \"0.0.0\" will do"),
            Some(version) => self.string("project.version", version, version::check),
        }
        match project.get("requires-python") {
            None => self.add(
                place.start,
                "project.requires-python is not there, which says what Pythons this is for; \
                 as in: requires-python = \">=3.10\"",
            ),
            Some(python) => self.string("project.requires-python", python, version::check_python),
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

    /// Whether the version comes from somewhere else.
    fn dynamic(&mut self, project: &DeTable) -> bool {
        let Some(dynamic) = project.get("dynamic") else { return false };
        let Some(fields) = self.array("project.dynamic", dynamic) else { return false };
        let mut version = false;
        for (index, field) in fields.iter().enumerate() {
            self.string(&format!("project.dynamic[{index}]"), field, |_| Ok(()));
            version |= field.get_ref().as_str() == Some("version");
        }
        version
    }

    fn requirements(&mut self, name: &str, value: &Value) {
        let Some(entries) = self.array(name, value) else { return };
        for (index, entry) in entries.iter().enumerate() {
            self.string(&format!("{name}[{index}]"), entry, requirement::check);
        }
    }

    /// An entry is a requirement, or brings in another group: `{include-group = "other"}`.
    fn group(&mut self, name: &str, value: &Value) {
        let Some(entries) = self.array(name, value) else { return };
        for (index, entry) in entries.iter().enumerate() {
            let name = format!("{name}[{index}]");
            let DeValue::Table(table) = entry.get_ref() else {
                self.string(&name, entry, requirement::check);
                continue;
            };
            match table.get("include-group") {
                Some(group) if table.len() == 1 => {
                    self.string(&format!("{name}.include-group"), group, requirement::check_name);
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

    fn key(&mut self, table: &str, key: &Spanned<std::borrow::Cow<str>>) {
        if let Err(mistake) = requirement::check_name(key.get_ref()) {
            self.add(key.span().start, format!("{table}: {}", mistake.message));
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
    fn string<T>(&mut self, name: &str, value: &Value, check: impl FnOnce(&str) -> Result<T, Mistake>) {
        let Some(string) = value.get_ref().as_str() else {
            return self.wrong_type(name, value, "a string, in quotes,");
        };
        if let Err(mistake) = check(string) {
            let at = place_in(self.text, value.span(), string, mistake.at);
            self.add(at, format!("{name}: {}", mistake.message));
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

/// The place in the text of a place in a string. One with escapes in it is pointed to as a whole.
fn place_in(text: &str, span: Range<usize>, string: &str, at: usize) -> usize {
    text.get(span.clone())
        .and_then(|raw| raw.find(string))
        .filter(|_| !string.is_empty())
        .map_or(span.start, |start| span.start + start + at)
}

#[cfg(test)]
mod tests;
