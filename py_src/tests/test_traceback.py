from __future__ import annotations

import sys
from typing import Any

import pytest

from snex._eval.code import compile_code
from snex._eval.envs import fresh_names
from snex._eval.traceback import error_fields, format_error


def failure(source: str, file: str | None = None, line: int = 1, env: Any = None) -> BaseException:
    try:
        compile_code(source, file, line).bind(fresh_names() if env is None else env)()
    except BaseException as error:  # noqa: BLE001 - this is what is looked at
        # Without the frame of this function.
        return error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    raise AssertionError


def without_marks(lines: list[str]) -> list[str]:
    """Newer versions underline the place within the line."""
    return [
        "\n".join(part for part in line.split("\n") if part == "" or part.strip(" ^~"))
        for line in lines
    ]


def test_a_traceback_has_the_users_frames_with_their_lines() -> None:
    error = failure("def f():\n    raise ValueError('no')\n\nf()")
    assert without_marks(format_error(error)) == [
        "Traceback (most recent call last):\n",
        '  File "<Snex.Code>", line 4, in <module>\n    f()\n',
        "  File \"<Snex.Code>\", line 2, in f\n    raise ValueError('no')\n",
        "ValueError: no\n",
    ]


def test_sources_of_one_name_are_told_apart() -> None:
    env = fresh_names()
    compile_code("def f():\n    raise ValueError  # first", None, 1).bind(env)()
    text = "".join(format_error(failure("x = 1\nf()  # second", env=env)))
    assert "raise ValueError  # first" in text
    assert "f()  # second" in text


def test_code_with_a_location_shows_its_own_lines() -> None:
    text = "".join(format_error(failure("\n1/0  # here", "no/such/file.ex", 40)))
    assert 'File "no/such/file.ex", line 41, in <module>' in text
    assert "1/0  # here" in text


def test_syntax_errors_show_the_place() -> None:
    text = "".join(format_error(failure("x = 1\ny = = 2", "lib/a.ex", 7)))
    assert 'File "lib/a.ex", line 8' in text
    assert "y = = 2" in text
    assert "snex/_eval/code.py" not in text


def test_the_fields_describe_the_exception_and_its_cause() -> None:
    fields: Any = error_fields(
        failure("try:\n    1/0\nexcept Exception as e:\n    raise KeyError('k') from e")
    )
    assert fields["code"] == "python_runtime_error"
    assert fields["reason"] == b"'k'"
    assert fields["exception"] == {
        "type": b"KeyError",
        "module": b"builtins",
        "notes": [],
        "cause": {"type": b"ZeroDivisionError", "module": b"builtins", "notes": [], "cause": None},
    }
    assert b"direct cause" in b"".join(fields["traceback"])


def test_context_counts_as_a_cause_unless_suppressed() -> None:
    shown: Any = error_fields(failure("try:\n    1/0\nexcept Exception:\n    raise KeyError"))
    hidden: Any = error_fields(
        failure("try:\n    1/0\nexcept Exception:\n    raise KeyError from None")
    )
    assert shown["exception"]["cause"]["type"] == b"ZeroDivisionError"
    assert hidden["exception"]["cause"] is None


def test_notes_are_told() -> None:
    error = ValueError("x")
    error.__notes__ = ["a note", 5]  # type: ignore[attr-defined]
    fields: Any = error_fields(error)
    assert fields["exception"]["notes"] == [b"a note", b"5"]


@pytest.mark.parametrize(
    "source",
    [
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "class E(Exception):\n    def __str__(self): return 5\nraise E",
        "class E(Exception):\n    __notes__ = property(lambda self: 1 / 0)\nraise E",
        "class E(Exception): pass\nE.__module__ = 5\nraise E",
        "raise ValueError('\\ud800')",
        "def f(): f()\nf()",
        "a, b = ValueError(), KeyError()\na.__cause__, b.__cause__ = b, a\nraise a",
        "def f(n):\n    try:\n        f(n + 1)\n    except BaseException:\n        raise ValueError(n)\nf(0)",
        "e = SyntaxError('x', ('f', 'no number', None, 5))\nraise e",
        "e = SyntaxError()\ne.text = 5\ne.lineno = -1\nraise e",
    ],
)
def test_nothing_an_exception_does_gets_in_the_way(source: str) -> None:
    fields = error_fields(failure(source))
    assert fields["traceback"]
    assert isinstance(fields["reason"], bytes)


def test_a_long_chain_is_cut_and_left_as_it_was() -> None:
    error = first = ValueError(0)
    for i in range(1, 5000):
        later = ValueError(i)
        later.__context__ = error
        error = later
    lines = format_error(error)
    assert sum(line.startswith("ValueError") for line in lines) == 17
    length = 0
    walk: BaseException | None = error
    while walk is not first:
        assert walk is not None
        walk = walk.__context__
        length += 1
    assert length == 4999


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_groups_show_their_members_with_lines() -> None:
    text = "".join(
        format_error(
            failure(
                "try:\n    1/0  # inner\nexcept Exception as e:\n    raise ExceptionGroup('g', [e])  # outer"
            )
        )
    )
    assert "1/0  # inner" in text
    assert "# outer" in text
