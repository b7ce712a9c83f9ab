//! Dependency strings, in the grammar of PEP 508: `name[extras] versions ; marker`, or `name @ URL ; marker`.
//!
//! Only the form is looked at: whether a marker or a URL makes sense is left to uv. Positions are byte offsets into the string.

use super::version;

/// What is wrong, and where in the string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Offset in bytes.
    pub at: usize,
    /// A sentence without its subject's place: "`=` is no operator, ...".
    pub message: String,
}

impl Mistake {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Mistake { at, message: message.into() }
    }
}

type Result<T> = std::result::Result<T, Mistake>;

/// What markers may ask about; those with a dot are from before PEP 508, the last two from PEP 751.
const VARIABLES: &[&str] = &[
    "os_name",
    "sys_platform",
    "platform_machine",
    "platform_python_implementation",
    "platform_release",
    "platform_system",
    "platform_version",
    "python_version",
    "python_full_version",
    "implementation_name",
    "implementation_version",
    "extra",
    "os.name",
    "sys.platform",
    "platform.version",
    "platform.machine",
    "platform.python_implementation",
    "python_implementation",
    "extras",
    "dependency_groups",
];

const OPERATORS: &[&str] = &["==", "!=", "<=", ">=", "~=", "<", ">"];

/// Parentheses in parentheses: nobody writes more, and the stack holds more.
const DEEPEST: usize = 64;

/// Checks one dependency.
///
/// # Errors
/// The first [`Mistake`] in it.
pub fn check(text: &str) -> Result<()> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.space();
    name(&mut cursor)?;
    cursor.space();
    if cursor.eat("[") {
        extras(&mut cursor)?;
        cursor.space();
    }
    if cursor.eat("@") {
        url(&mut cursor)?;
    } else if cursor.eat("(") {
        let (start, inside) = cursor.until(&[')', ';']);
        if !cursor.eat(")") {
            return Err(cursor.wrong("`(` has no `)`"));
        }
        version::check_set(inside, start)?;
    } else if cursor.peek().is_some_and(|next| "<>=!~".contains(next)) {
        let (start, inside) = cursor.until(&[';']);
        version::check_set(inside, start)?;
    }
    cursor.space();
    if cursor.eat(";") {
        disjunction(&mut cursor, 0)?;
        cursor.space();
    }
    match cursor.peek() {
        None => Ok(()),
        Some('#') => Err(cursor.wrong("a comment goes behind the string, not into it")),
        Some(_) if cursor.text[..cursor.at].contains(';') => {
            Err(cursor.wrong(format!("{} cannot follow a complete marker", cursor.rest())))
        }
        Some(digit) if digit.is_ascii_digit() => {
            let (at, version) = cursor.take(|c| c.is_ascii_alphanumeric() || ".*+!".contains(c));
            Err(Mistake::new(at, format!("`{version}` has no operator; it may be meant as `=={version}`")))
        }
        Some(_) => Err(cursor.wrong(format!(
            "{} cannot follow the name: that may be [extras], versions such as >=1.0, @ and a URL, or ; and a marker",
            cursor.rest()
        ))),
    }
}

/// Checks the name of a project, package, extra or group.
///
/// # Errors
/// The [`Mistake`]: names have ASCII letters, digits, `-`, `_` and `.`, and end in a letter or digit on both sides.
pub fn check_name(text: &str) -> Result<()> {
    let mut cursor = Cursor { text, at: 0 };
    name(&mut cursor)?;
    if cursor.at < text.len() { Err(Mistake::new(cursor.at, name_rule(text))) } else { Ok(()) }
}

fn name_rule(text: &str) -> String {
    format!(
        "`{}` cannot be a name: it may have letters (a to z), digits, `-`, `_` and `.`, with a letter or digit at both ends",
        shortened(text)
    )
}

fn name(cursor: &mut Cursor) -> Result<()> {
    let (start, name) = cursor.take(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let good = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if good(name.chars().next()) && good(name.chars().next_back()) {
        return Ok(());
    }
    let whole = cursor.text;
    Err(Mistake::new(
        start,
        if whole.trim().is_empty() {
            "there is nothing in it, where a name is wanted".to_owned()
        } else if whole[start..].starts_with(['.', '/']) || whole.contains("://") {
            format!(
                "`{}` has no name in front: packages elsewhere are written as `name @ URL`",
                shortened(whole)
            )
        } else {
            name_rule(if name.is_empty() { whole } else { name })
        },
    ))
}

/// Behind the bracket.
fn extras(cursor: &mut Cursor) -> Result<()> {
    cursor.space();
    if cursor.eat("]") {
        return Ok(());
    }
    loop {
        cursor.space();
        name(cursor)?;
        cursor.space();
        if cursor.eat("]") {
            return Ok(());
        }
        if !cursor.eat(",") {
            return Err(cursor.wrong("extras are names with commas between them, in brackets: [one,two]"));
        }
    }
}

/// Behind the `@`. It ends at a semicolon with a space before or behind it: one within belongs to the URL.
fn url(cursor: &mut Cursor) -> Result<()> {
    cursor.space();
    let start = cursor.at;
    let rest = &cursor.text[start..];
    let end = rest
        .char_indices()
        .find(|&(at, c)| {
            c == ';'
                && (rest[..at].ends_with(char::is_whitespace)
                    || rest[at + 1..].starts_with(char::is_whitespace))
        })
        .map_or(rest.len(), |(at, _)| at);
    cursor.at += end;
    if rest[..end].trim().is_empty() {
        return Err(Mistake::new(start, "behind @ there has to be a URL"));
    }
    Ok(())
}

fn disjunction(cursor: &mut Cursor, depth: usize) -> Result<()> {
    conjunction(cursor, depth)?;
    while cursor.word("or") {
        conjunction(cursor, depth)?;
    }
    Ok(())
}

fn conjunction(cursor: &mut Cursor, depth: usize) -> Result<()> {
    comparison(cursor, depth)?;
    while cursor.word("and") {
        comparison(cursor, depth)?;
    }
    Ok(())
}

fn comparison(cursor: &mut Cursor, depth: usize) -> Result<()> {
    cursor.space();
    if cursor.eat("(") {
        if depth == DEEPEST {
            return Err(cursor.wrong("there are too many parentheses"));
        }
        disjunction(cursor, depth + 1)?;
        cursor.space();
        return if cursor.eat(")") { Ok(()) } else { Err(cursor.wrong("a `(` in the marker has no `)`")) };
    }
    operand(cursor)?;
    operator(cursor)?;
    cursor.space();
    operand(cursor)
}

fn operand(cursor: &mut Cursor) -> Result<()> {
    if let Some(quote @ ('"' | '\'')) = cursor.peek() {
        let opening = cursor.at;
        cursor.at += 1;
        cursor.until(&[quote]);
        let closed = cursor.peek().is_some();
        cursor.at += usize::from(closed);
        return if closed { Ok(()) } else { Err(Mistake::new(opening, "this quote is not closed")) };
    }
    let (start, word) = cursor.take(|c| c.is_alphanumeric() || "_.".contains(c));
    if VARIABLES.contains(&word) {
        return Ok(());
    }
    Err(Mistake::new(
        start,
        if word.is_empty() {
            "a marker is a comparison, such as python_version < '3.12', or several with `and` and `or`"
                .to_owned()
        } else if word.starts_with(|c: char| c.is_ascii_digit()) {
            format!("`{word}` has to be in quotes: '{word}'")
        } else {
            format!("a marker knows no `{word}`; it knows {}", VARIABLES[..12].join(", "))
        },
    ))
}

fn operator(cursor: &mut Cursor) -> Result<()> {
    cursor.space();
    let start = cursor.at;
    if cursor.word("in") || (cursor.word("not") && cursor.word("in")) {
        return Ok(());
    }
    cursor.at = start;
    let (_, symbols) = cursor.take(|c| "<>=!~".contains(c));
    if OPERATORS.contains(&symbols) {
        return Ok(());
    }
    let operators = OPERATORS.join(" ");
    Err(Mistake::new(
        start,
        if symbols.is_empty() {
            format!("there has to be an operator, one of {operators} in `not in`")
        } else {
            format!("`{symbols}` is no operator of a marker: {operators} in `not in`")
        },
    ))
}

/// A place in a text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, mut good: impl FnMut(char) -> bool) -> (usize, &'a str) {
        let start = self.at;
        let rest = &self.text[start..];
        let taken = &rest[..rest.find(|c| !good(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        (start, taken)
    }

    fn until(&mut self, ends: &[char]) -> (usize, &'a str) {
        self.take(|c| !ends.contains(&c))
    }

    fn space(&mut self) {
        self.take(char::is_whitespace);
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let there = self.text[self.at..].starts_with(symbol);
        self.at += if there { symbol.len() } else { 0 };
        there
    }

    /// A word behind spaces, and whole.
    fn word(&mut self, word: &str) -> bool {
        let before = self.at;
        self.space();
        let (_, taken) = self.take(|c| c.is_alphanumeric() || c == '_');
        if taken != word {
            self.at = before;
        }
        taken == word
    }

    fn wrong(&self, message: impl Into<String>) -> Mistake {
        Mistake::new(self.at, message)
    }

    /// What comes next, for a message.
    fn rest(&self) -> String {
        format!("`{}`", shortened(&self.text[self.at..]))
    }
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(40) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
