//! Checks of names and versions. An error is the part of a sentence that follows the name of the field.

use pep440_rs::{Version, VersionSpecifiers};
use std::str::FromStr;

/// The first minor version of Python 3 that Snex runs on.
const OLDEST_PYTHON: u64 = 10;

/// Accepts every text.
pub fn any(_text: &str) -> Result<(), String> {
    Ok(())
}

/// Checks the name of a project, extra or group.
pub fn name(text: &str) -> Result<(), String> {
    let ends = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if ends && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name: it may have letters (a to z), digits, `-`, `_` and `.`, with a letter or digit at both ends",
        shortened(text)
    ))
}

/// Checks a version.
pub fn version(text: &str) -> Result<(), String> {
    match Version::from_str(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "`{}` is not a version: that is numbers with dots, such as 1.0.0 or 2.1rc1",
            shortened(text)
        )),
    }
}

/// Checks a set of Python versions, which has to contain one that Snex runs on.
pub fn python(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("it is empty, where the Pythons are wanted: \">=3.10\"".to_owned());
    }
    if Version::from_str(text).is_ok() {
        return Err(format!("`{text}` is one version; \">={text}\" means that one and all later ones"));
    }
    let set = VersionSpecifiers::from_str(text).map_err(|error| {
        // The first line has the reason; the others repeat the text.
        let reason = error.to_string();
        let reason = reason.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
        format!("`{}` does not describe versions: {reason}", shortened(text))
    })?;
    let oldest = Version::new([3, OLDEST_PYTHON]);
    let released =
        (OLDEST_PYTHON..40).flat_map(|minor| (0..60).map(move |patch| Version::new([3, minor, patch])));
    // The versions that the set itself names are tried as well: one may be a pre-release, or beyond those above.
    let named = set.iter().map(|specifier| specifier.version().clone()).filter(|version| *version >= oldest);
    if released.chain(named).any(|version| set.contains(&version)) {
        return Ok(());
    }
    Err(format!("`{}` leaves no Python that Snex runs on: 3.{OLDEST_PYTHON} or later", shortened(text)))
}

/// The first characters of a text that may be long, without line breaks and other control characters.
fn shortened(text: &str) -> String {
    let text = text.trim().replace(char::is_control, " ");
    match text.char_indices().nth(40) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
