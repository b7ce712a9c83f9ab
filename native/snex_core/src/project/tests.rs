use super::{check, requirement};
use proptest::prelude::*;

const GOOD: &str = "[project]\nname = 'a'\nversion = '1'\nrequires-python = '>=3.10'\n";

/// The problems of a text, as `line:column message` lines.
fn problems(text: &str) -> Vec<String> {
    check(text.as_bytes()).into_iter().map(|p| format!("{}:{} {}", p.line, p.column, p.message)).collect()
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
    let found = check(b"[project]\nn = '\xc3\xa4\xff'");
    assert_eq!((found.len(), found[0].line, found[0].column), (1, 2, 7));
    assert!(found[0].message.contains("UTF-8"));
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
    one(&GOOD.replace("'a'", "'my app'"), "2:11 project.name: ", "`my app` cannot be a name");
    one(&GOOD.replace("'a'", "'-a'"), "2:9 project.name: ", "`-a` cannot be a name");
    one(&GOOD.replace("'a'", "''"), "2:8 project.name: ", "there is nothing in it");
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
    for good in [
        "'>=3.10'",
        "'==3.12.*'",
        "'>=3.8,<4'",
        "'~=3.11'",
        "'>=3.14.0a1'",
        "'==3.10.4'",
        "'>=3.*'",
        "'!=3.11.*'",
    ] {
        assert_eq!(problems(&with(good)), [""; 0], "{good}");
    }
    one(&with("'3.10'"), "4:20 ", "`3.10` has no operator in front: ==");
    one(&with("'>=3.10,=<4'"), "4:27 ", "`=<` is no operator");
    one(&with("'>=three'"), "4:20 ", "`>=three` does not describe versions: ");
    one(&with("''"), "4:19 ", "it is empty");
    one(&with("'<3.10'"), "4:20 ", "no Python that Snex runs on: 3.10 or later");
    one(&with("'==2.7.18'"), "4:20 ", "no Python that Snex runs on");
    one(&with("3.10"), "4:19 ", "project.requires-python is a float");
}

#[test]
fn each_dependency_string() {
    let text = format!("{GOOD}dependencies = [\n  'numpy>=2',\n  \"pandas=2\",\n  7,\n]\n");
    let problems = problems(&text);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("7:10 project.dependencies[1]: `=` is no operator"), "{problems:#?}");
    assert!(problems[1].starts_with("8:3 project.dependencies[2] is an integer"), "{problems:#?}");
    one(
        &format!("{GOOD}dependencies = 'numpy'\n"),
        "5:16 ",
        "where an array of strings, in brackets, is wanted",
    );
}

#[test]
fn extras_and_groups() {
    let extras = |text: &str| format!("{GOOD}[project.optional-dependencies]\n{text}\n");
    one(&extras("x = ['a b']"), "6:9 project.optional-dependencies.x[0]: ", "`b` cannot follow the name");
    one(&extras("'not good' = []"), "6:1 project.optional-dependencies: ", "`not good` cannot be a name");
    one(&extras("x = 'a'"), "6:5 ", "project.optional-dependencies.x is a string");
    let groups = |text: &str| format!("{GOOD}[dependency-groups]\n{text}\n");
    one(&groups("x = ['a', '>1']"), "6:12 dependency-groups.x[1]: ", "`>1` cannot be a name");
    one(&groups("x = [{include = 'y'}]"), "6:6 dependency-groups.x[0] ", "{include-group = \"name\"}");
    one(&groups("x = [{include-group = 1}]"), "6:23 ", "dependency-groups.x[0].include-group is an integer");
    one(&format!("dependency-groups = 1\n{GOOD}"), "1:21 ", "dependency-groups is an integer");
}

#[test]
fn places_are_counted_in_characters_and_lines_of_the_text() {
    one(&format!("{GOOD}dependencies = ['a', # ä\r\n 'b c']"), "6:5 ", "`c`");
    one(&format!("{GOOD}description = 'ä' # ä\ndependencies = [ \"ä\" ]"), "6:19 ", "`ä` cannot be a name");
    // In a string with escapes, its beginning.
    one(&format!("{GOOD}dependencies = [\"a\\tb\"]"), "5:17 ", "`b` cannot follow the name");
}

/// What uv takes, and what it does not.
const TAKEN: &[&str] = &[
    "numpy>=1,",
    "numpy >= 1.0 , < 2",
    " numpy ",
    "numpy (>=1.0)",
    "numpy(>=1,<2) ; os_name == 'a'",
    "numpy[]",
    "numpy [a, b.c_d-e] >=1",
    "numpy>=1.*",
    "numpy==1.*,!=1.0.3",
    "numpy===1.2",
    "numpy==v1.0+local",
    "numpy>= 1.0-alpha",
    "numpy @ https://example.invalid/x;y.whl ; python_version > '3'",
    "numpy @ https://example.invalid/x.whl; python_version > '3'",
    "numpy@file:///tmp/x.whl",
    "numpy @ ${HOME}/x",
    "numpy;python_version<'3.8'",
    "numpy; os.name == \"posix\"",
    "numpy; 'linux' in sys_platform and os_name not  in 'a b'",
    "numpy; os_name == 'a'and os_name ~= 'b'",
    "numpy; ((os_name == 'a') or os_name == 'b') and 'x' != 'y'",
    "numpy; 'a' in extras or 'b' in dependency_groups",
];
const REFUSED: &[(&str, usize, &str)] = &[
    ("", 0, "there is nothing in it"),
    ("numpy,>=1", 5, "`,>=1` cannot follow the name"),
    ("numpy>=1,,<2", 9, "there is nothing where versions are wanted"),
    ("numpy (>=1.0", 12, "`(` has no `)`"),
    ("numpy ()", 7, "there is nothing where versions"),
    ("numpy (1.0)", 7, "`1.0` has no operator in front"),
    ("numpy[a,b,]", 10, "cannot be a name"),
    ("numpy[a b]", 8, "commas between"),
    ("numpy===foo", 5, "`===foo` does not describe versions"),
    ("numpy~=1", 5, "`~=1` does not describe versions"),
    ("numpy 1.2", 6, "`1.2` has no operator; it may be meant as `==1.2`"),
    ("numpy=1.2", 5, "`=` is no operator"),
    ("numpy=>1.2", 5, "`=>` is no operator"),
    ("numpy>=", 5, "`>=` does not describe versions"),
    ("numpy_", 0, "`numpy_` cannot be a name"),
    ("nümpy", 1, "cannot follow the name"),
    ("./path", 0, "written as `name @ URL`"),
    ("git+https://example.invalid/x.git", 3, "cannot follow the name"),
    ("numpy @ ", 8, "there has to be a URL"),
    ("numpy; python_version < 3.8", 24, "`3.8` has to be in quotes"),
    ("numpy; unknown == 'x'", 7, "knows no `unknown`; it knows os_name, "),
    ("numpy; os_name === 'a'", 15, "`===` is no operator of a marker"),
    ("numpy; os_name = 'a'", 15, "`=` is no operator of a marker"),
    ("numpy; os_name", 14, "there has to be an operator"),
    ("numpy; (os_name == 'a'", 22, "has no `)`"),
    ("numpy; os_name == 'a')", 21, "`)` cannot follow a complete marker"),
    ("numpy; os_name == 'a' or", 24, "a marker is a comparison"),
    ("numpy; os_name == 'a' AND os_name == 'b'", 22, "cannot follow a complete marker"),
    ("numpy; os_name == 'a", 18, "quote is not closed"),
    ("numpy;", 6, "a marker is a comparison"),
    ("numpy # comment", 6, "a comment goes behind the string"),
    ("numpy>=1 <2", 5, "does not describe versions"),
    ("numpy>=1.0+local", 5, "does not describe versions"),
];

#[test]
fn requirements_that_uv_takes_are_taken() {
    for text in TAKEN {
        assert_eq!(requirement::check(text), Ok(()), "{text}");
    }
}

#[test]
fn requirements_that_uv_refuses_are_refused_with_place_and_reason() {
    for (text, at, part) in REFUSED {
        let mistake = requirement::check(text).expect_err(text);
        assert_eq!(mistake.at, *at, "{text}: {mistake:?}");
        assert!(mistake.message.contains(part), "{text}: {mistake:?}");
    }
}

#[test]
fn depth_has_an_end() {
    for deep in [1_000, 1_000_000] {
        assert!(requirement::check(&format!("a; {}", "(".repeat(deep))).is_err());
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
        let _ = check(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(text in pieces()) {
        for problem in check(text.as_bytes()) {
            prop_assert!(problem.line >= 1 && problem.line <= text.matches('\n').count() + 1);
            prop_assert!(problem.column >= 1 && !problem.message.contains('\n'), "{problem:?}");
        }
    }

    #[test]
    fn no_value_makes_it_panic(value in pieces(), key in 0..6usize) {
        let key = ["name", "version", "requires-python", "dependencies", "dynamic", "x"][key];
        for value in [format!("{value:?}"), format!("['''{value}''']"), value] {
            let _ = check(format!("[project]\n{key} = {value}\n").as_bytes());
        }
    }

    #[test]
    fn no_requirement_makes_it_panic(text in pieces()) {
        if let Err(mistake) = requirement::check(&text) {
            prop_assert!(text.is_char_boundary(mistake.at), "{mistake:?}");
        }
        let _ = super::version::check_python(&text);
        let _ = super::version::check(&text);
    }
}
