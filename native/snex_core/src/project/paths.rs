//! Operations on the text of paths. Nothing here reads the file system.

/// The relative path from `folder` to the target of `path`, which starts from `start`; `.` if the target is `folder`. Both
/// folders are absolute.
///
/// As in uv, `..` cancels the name before it, even if that is a symbolic link.
pub fn way(path: &str, start: &str, folder: &str) -> String {
    let target = format!("{start}/{path}");
    let target = parts(&target);
    let folder = parts(folder);
    let common = target.iter().zip(&folder).take_while(|(a, b)| a == b).count();
    let up = folder[common..].iter().map(|_| "..");
    let way: Vec<_> = up.chain(target[common..].iter().copied()).collect();
    if way.is_empty() { ".".to_owned() } else { way.join("/") }
}

/// The names on an absolute path, without `.` and `..`.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => (),
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

/// Whether a string is a relative path: neither an absolute path, nor a URL.
pub fn is_relative(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with(['/', '~', '$'])
        && !path.contains(|c: char| c == ':' || c.is_control())
}

/// `text` as a TOML string, with the same quotes as `raw` if that is possible.
pub fn quoted(text: &str, raw: &str) -> String {
    if raw.starts_with('\'') && !text.contains(|c: char| c == '\'' || c.is_control()) {
        return format!("'{text}'");
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Replaces the strings at these places. The lines of the text stay the same: a string that spans several lines is not
/// replaced, because nobody writes paths that way.
pub fn replace(text: &str, mut places: Vec<(std::ops::Range<usize>, String)>) -> String {
    places.sort_by_key(|(span, _)| span.start);
    let mut replaced = String::with_capacity(text.len());
    let mut done = 0;
    for (span, path) in places {
        let (Some(between), Some(raw)) = (text.get(done..span.start), text.get(span.clone())) else {
            continue;
        };
        if raw.contains('\n') {
            continue;
        }
        replaced.push_str(between);
        replaced.push_str(&quoted(&path, raw));
        done = span.end;
    }
    replaced.push_str(&text[done..]);
    replaced
}

#[cfg(test)]
mod tests {
    use super::{quoted, way};
    use proptest::prelude::*;

    #[test]
    fn ways() {
        for (path, start, folder, wanted) in [
            ("own", "/app", "/app/_build/x", "../../own"),
            ("../../own", "/app/_build/x", "/app", "own"),
            ("../lib", "/app", "/app/_build/x", "../../../lib"),
            ("../../../lib", "/app/_build/x", "/app", "../lib"),
            ("./a/./b/", "/app", "/app", "a/b"),
            ("../..", "/app/_build/x", "/app", "."),
            ("../../../..", "/a", "/a/b", "../.."),
        ] {
            assert_eq!(way(path, start, folder), wanted, "{path} {start} {folder}");
        }
    }

    #[test]
    fn quotes() {
        assert_eq!(quoted("a b", "'x'"), "'a b'");
        assert_eq!(quoted("it's", "'x'"), "\"it's\"");
        assert_eq!(quoted("a\"\\\n", "\"x\""), r#""a\"\\\u000A""#);
    }

    proptest! {
        #[test]
        fn a_way_there_and_back_again(path in "(\\.\\./)?[ab](/[ab]){0,2}", from in "(/[ab]){2,4}", to in "(/[ab]){1,4}") {
            let there = way(&path, &from, &to);
            prop_assert_eq!(way(&there, &to, &from), way(&path, &from, &from));
        }
    }
}
