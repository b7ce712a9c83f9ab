use super::{Workspace, read};
use proptest::prelude::*;

const GOOD: &str = "[project]\nname = 'a'\nversion = '1'\nrequires-python = '>=3.10'\n";

/// The problems of a text, as `line:column message` lines.
fn problems(text: &str) -> Vec<String> {
    let problems = read(text.as_bytes()).problems;
    problems.into_iter().map(|p| format!("{}:{} {}", p.line, p.column, p.value)).collect()
}

/// The only problem, which begins with `start` and has `part` in it.
#[track_caller]
fn one(text: &str, start: &str, part: &str) {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with(start), "{problems:#?}");
    assert!(problems[0].contains(part), "{problems:#?}");
}

#[test]
fn a_good_project_has_no_problems() {
    assert_eq!(problems(GOOD), [""; 0]);
    let whole = format!(
        "{GOOD}dynamic = ['readme']\ndependencies = ['numpy>=2', \"b ; python_version < '3.12'\"]\n\
         [project.optional-dependencies]\nextra = ['c[d,e] ~= 1.2']\n\
         [dependency-groups]\ndev = ['f', {{include-group = 'g'}}]\ng = []\n[tool.uv]\npackage = false\n"
    );
    assert_eq!(problems(&whole), [""; 0]);
}

#[test]
fn syntax() {
    one("[project\nname = 'a'\n", "1:9 ", "this is not TOML: ");
    one("[project]\nname = 'a\n", "2:10 ", "this is not TOML: ");
    let problems = problems("[project]\nname = \nversion = 1 2\nname = 'b'\n");
    assert!(problems.len() > 1 && problems[0].starts_with("2:"), "{problems:#?}");
}

#[test]
fn bytes_that_are_no_text() {
    let found = read(b"[project]\nn = '\xc3\xa4\xff'").problems;
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 2, 7));
    assert!(found[0].value.contains("UTF-8"));
}

#[test]
fn a_project_table() {
    one("", "1:1 ", "no table [project]");
    one("[tool.uv]\npackage = false\n", "1:1 ", "no table [project]");
    one("project = 3", "1:11 ", "project is an integer, where a table is wanted");
    one("[[project]]\nname = 'a'\n", "1:1 ", "project is an array, where a table is wanted");
}

#[test]
fn what_is_missing_is_told_at_the_table() {
    let problems = problems("# a comment\n\n[project]\n");
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.starts_with("3:1 project.")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.contains(r#"name = "my-app""#)));
    assert!(problems.iter().any(|problem| problem.contains(r#"version = "0.0.0""#)));
    assert!(problems.iter().any(|problem| problem.contains(r#"requires-python = ">=3.10""#)));
}

#[test]
fn name_and_version() {
    one(&GOOD.replace("'a'", "'my app'"), "2:9 project.name: ", "`my app` cannot be a name");
    one(&GOOD.replace("'a'", "'-a'"), "2:9 project.name: ", "`-a` cannot be a name");
    one(&GOOD.replace("'a'", "''"), "2:8 project.name: ", "`` cannot be a name");
    one(
        &GOOD.replace("'a'", "1"),
        "2:8 ",
        "project.name is an integer, where a string, in quotes, is wanted",
    );
    one(&GOOD.replace("'1'", "1.0"), "3:11 ", "project.version is a float");
    one(&GOOD.replace("'1'", "'one'"), "3:12 ", "`one` is not a version");
}

#[test]
fn a_version_may_come_from_elsewhere() {
    let dynamic = GOOD.replace("version = '1'", "dynamic = ['version']");
    assert_eq!(problems(&dynamic), [""; 0]);
    let text = GOOD.replace("version = '1'", "version = '1'\ndynamic = 'version'");
    one(&text, "4:11 ", "project.dynamic is a string");
}

#[test]
fn requires_python() {
    let with = |python: &str| GOOD.replace("'>=3.10'", python);
    for good in
        ["'>=3.10'", "'==3.12.*'", "'>=3.8,<4'", "'~=3.11'", "'>=3.14.0a1'", "'==3.10.4'", "'!=3.11.*'"]
    {
        assert_eq!(problems(&with(good)), [""; 0], "{good}");
    }
    one(&with("'3.10'"), "4:20 ", "`3.10` is one version; \">=3.10\" means");
    one(&with("'>=3.10,=<4'"), "4:20 ", "no such comparison operator \"=<\", must be one of ");
    one(&with("'>=3.*'"), "4:20 ", "Operator >= cannot be used with a wildcard");
    one(&with("'>=three'"), "4:20 ", "`>=three` does not describe versions: ");
    one(&with("''"), "4:19 ", "it is empty");
    one(&with("'<3.10'"), "4:20 ", "no Python that Snex runs on: 3.10 or later");
    one(&with("'==2.7.18'"), "4:20 ", "no Python that Snex runs on");
    one(&with("3.10"), "4:19 ", "project.requires-python is a float");
}

#[test]
fn dependency_strings_have_places_and_are_not_judged() {
    let text = format!(
        "{GOOD}dependencies = [\n  'numpy>=2',\n  \"a b\",\n  7,\n]\n[project.optional-dependencies]\nx = ['>1']\n\
         [dependency-groups]\ng = [{{include-group = 'h'}}, 'y']\nh = []\n"
    );
    let report = read(text.as_bytes());
    let dependencies: Vec<_> =
        report.dependencies.iter().map(|found| (found.line, found.column, &*found.value)).collect();
    assert_eq!(dependencies, [(6, 4, "numpy>=2"), (7, 4, "a b"), (11, 7, ">1"), (13, 30, "y")]);
    let problems = problems(&text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("8:3 project.dependencies[2] is an integer"), "{problems:#?}");
    one(
        &format!("{GOOD}dependencies = 'numpy'\n"),
        "5:16 ",
        "where an array of strings, in brackets, is wanted",
    );
}

#[test]
fn extras_and_groups() {
    let extras = |text: &str| format!("{GOOD}[project.optional-dependencies]\n{text}\n");
    one(&extras("'not good' = []"), "6:1 project.optional-dependencies: ", "`not good` cannot be a name");
    one(&extras("x = 'a'"), "6:5 ", "project.optional-dependencies.x is a string");
    let groups = |text: &str| format!("{GOOD}[dependency-groups]\n{text}\n");
    one(&groups("x = [{include = 'y'}]"), "6:6 dependency-groups.x[0] ", "{include-group = \"name\"}");
    one(&groups("x = [{include-group = 1}]"), "6:23 ", "dependency-groups.x[0].include-group is an integer");
    one(&format!("dependency-groups = 1\n{GOOD}"), "1:21 ", "dependency-groups is an integer");
}

#[test]
fn places_are_counted_in_characters_and_lines_of_the_text() {
    one(&format!("{GOOD}description = 'ä' # ä\r\ndynamic = [ \"ä\", 1 ]"), "6:18 ", "an integer");
    // In a string with escapes, its beginning.
    let text = GOOD.replace("'a'", r#""\u00e4""#);
    one(&text, "2:8 project.name: ", "`ä` cannot be a name");
}

#[test]
fn keys_of_the_tables_that_everybody_has() {
    let report =
        read(b"[project]\nname = 'a'\n'dependncies' = []\n[project.urls]\nx = 'y'\n[tool.x]\ny = 1\n");
    let keys: Vec<_> =
        report.keys.iter().map(|key| (key.line, key.column, key.value.table, &*key.value.name)).collect();
    assert_eq!(
        keys,
        [
            (1, 2, "", "project"),
            (2, 1, "project", "name"),
            (3, 1, "project", "dependncies"),
            (4, 10, "project", "urls"),
            (6, 2, "", "tool"),
        ]
    );
    assert_eq!(report.name.as_deref(), Some("a"));
}

#[test]
fn a_workspace() {
    assert_eq!(read(GOOD.as_bytes()).workspace, None);
    let text = format!("{GOOD}[tool.uv.workspace]\nmembers = ['packages/*', 3]\n");
    let workspace = Workspace { members: vec!["packages/*".to_owned()], exclude: vec![] };
    assert_eq!(read(text.as_bytes()).workspace, Some(workspace));
}

#[test]
fn depth_has_an_end() {
    for deep in [1_000, 1_000_000] {
        assert!(!problems(&format!("{GOOD}dependencies = {}", "[".repeat(deep))).is_empty());
    }
}

/// Pieces that make texts which come far.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "[project]\n",
            "name",
            "version",
            "requires-python",
            " = ",
            "'",
            "\"",
            "'''",
            "a",
            "ä",
            "1",
            ".",
            "*",
            ">=",
            "~=",
            "==",
            "===",
            "<",
            "!",
            "[",
            "]",
            "{",
            "}",
            "(",
            ")",
            ",",
            ";",
            "@",
            " ",
            "\n",
            "dependencies",
            "include-group",
            "[dependency-groups]\n",
            "[project.optional-dependencies]\n",
            "dynamic",
            "os_name",
            "in",
            "not",
            "and",
            "or",
            "+",
            "-",
            "rc1",
            ".post",
            ".dev",
            "99999999999999999999",
            "\\u00e4",
            "#",
            "\t",
            "\u{0}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in pieces()) {
        for problem in read(text.as_bytes()).problems {
            prop_assert!(problem.line >= 1 && problem.line <= text.matches('\n').count() + 1);
            prop_assert!(problem.column >= 1 && !problem.value.contains('\n'), "{problem:?}");
        }
    }

    #[test]
    fn no_value_makes_it_panic(value in pieces(), key in 0..6usize) {
        let key = ["name", "version", "requires-python", "dependencies", "dynamic", "x"][key];
        for value in [format!("{value:?}"), format!("['''{value}''']"), value] {
            let _ = read(format!("[project]\n{key} = {value}\n").as_bytes());
        }
    }
}
