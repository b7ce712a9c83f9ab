//! Versions and the sets of them that `>=1.0,<2` describes, as PEP 440 has them.

use super::requirement::{Mistake, shortened};
use pep440_rs::{Version, VersionSpecifier, VersionSpecifiers};
use std::str::FromStr;

/// The first minor version of Python 3 that Snex runs on.
const OLDEST_PYTHON: u64 = 10;

/// Checks a version.
///
/// # Errors
/// The [`Mistake`].
pub fn check(text: &str) -> Result<(), Mistake> {
    match Version::from_str(text.trim()) {
        Ok(_) => Ok(()),
        Err(_) => Err(Mistake::new(
            0,
            format!(
                "`{}` is not a version: that is numbers with dots, such as 1.0.0 or 2.1rc1",
                shortened(text)
            ),
        )),
    }
}

/// Checks a set of versions, which begins at `start` of a longer text.
///
/// # Errors
/// The first [`Mistake`].
pub fn check_set(text: &str, start: usize) -> Result<VersionSpecifiers, Mistake> {
    let mut specifiers = Vec::new();
    let mut at = start;
    let parts: Vec<&str> = text.split(',').collect();
    for (index, part) in parts.iter().enumerate() {
        let place = at + (part.len() - part.trim_start().len());
        // A comma behind the last one is taken by uv as well.
        if !(part.trim().is_empty() && index > 0 && index + 1 == parts.len()) {
            specifiers.push(specifier(part.trim()).map_err(|message| Mistake::new(place, message))?);
        }
        at += part.len() + 1;
    }
    Ok(VersionSpecifiers::from_iter(specifiers))
}

fn specifier(text: &str) -> Result<VersionSpecifier, String> {
    if text.is_empty() {
        return Err("there is nothing where versions are wanted, such as >=1.0".to_owned());
    }
    let operator = &text[..text.find(|c| !"<>=!~".contains(c)).unwrap_or(text.len())];
    // PEP 440 has the star for == and != alone; uv takes it everywhere, and leaves it out.
    let text = match operator {
        ">=" | "<=" | ">" | "<" => text.strip_suffix(".*").unwrap_or(text),
        _ => text,
    };
    VersionSpecifier::from_str(text).map_err(|error| match operator {
        "" => format!("`{}` has no operator in front: == >= <= > < ~= !=", shortened(text)),
        "~=" | "==" | "!=" | "<=" | ">=" | "<" | ">" | "===" => {
            // What it has to say is the first line.
            let reason = error.to_string();
            let reason = reason.lines().next().unwrap_or_default().trim_end_matches(':').to_owned();
            format!("`{}` does not describe versions: {reason}", shortened(text))
        }
        other => format!("`{other}` is no operator: == >= <= > < ~= !="),
    })
}

/// Checks which Pythons a project is for: a set of versions in which there is one that Snex runs on.
///
/// # Errors
/// The first [`Mistake`].
pub fn check_python(text: &str) -> Result<(), Mistake> {
    if text.trim().is_empty() {
        return Err(Mistake::new(0, "it is empty, where the Pythons are wanted: \">=3.10\""));
    }
    let set = check_set(text, 0)?;
    let oldest = Version::new([3, OLDEST_PYTHON]);
    let released =
        (OLDEST_PYTHON..40).flat_map(|minor| (0..60).map(move |patch| Version::new([3, minor, patch])));
    // And what it names itself: a pre-release, or one that is far ahead.
    let named = set.iter().map(|specifier| specifier.version().clone()).filter(|version| *version >= oldest);
    if released.chain(named).any(|version| set.contains(&version)) {
        Ok(())
    } else {
        Err(Mistake::new(
            0,
            format!("`{}` leaves no Python that Snex runs on: 3.{OLDEST_PYTHON} or later", shortened(text)),
        ))
    }
}
