"""What a notebook shows of objects, and what it finds out about a cell."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from snex._display import cell, tables
from snex._display.representation import is_rich, represent, take_open_figures
from snex._etf.handles import Handle

CPYTHON = sys.implementation.name == "cpython"


class Html:
    def _repr_html_(self) -> str:
        return "<b>"


class Chart:
    def to_plotly_json(self) -> dict[str, int]:
        return {}

    def to_html(self, *, include_plotlyjs: str, full_html: bool) -> str:
        return f"{include_plotlyjs} {full_html}"


def test_a_class_is_no_object_of_itself() -> None:
    assert is_rich(Html())
    assert not is_rich(Html)
    assert represent(Html)[0] == "text/plain"


def test_plotly_charts_are_html() -> None:
    assert represent(Chart()) == ("text/html", "cdn False")


def test_without_matplotlib_no_figure_is_open() -> None:
    assert take_open_figures() == []


@pytest.mark.skipif(not CPYTHON, reason="pandas, polars and pyarrow are for CPython")
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_are_paged_and_sorted(library: str) -> None:
    module: Any = pytest.importorskip(library)
    data = {"n": [3, 1, 2], "s": ["c", "a", "b"]}
    frame = module.table(data) if library == "pyarrow" else module.DataFrame(data)
    assert represent(frame) == ("table", {"columns": ["n", "s"], "rows": 3})
    assert tables.page(frame, 1, 1) == [[1], ["a"]]
    assert tables.page(frame, 0, None, 0) == [[1, 2, 3], ["a", "b", "c"]]
    assert tables.page(frame, 0, 1, 1, descending=True) == [[3], ["c"]]


@pytest.mark.skipif(not CPYTHON, reason="pandas is for CPython")
def test_an_index_of_several_levels_is_several_columns() -> None:
    pd: Any = pytest.importorskip("pandas")
    index = pd.MultiIndex.from_tuples([("a", 2), ("b", 1)], names=["x", None])
    frame = pd.DataFrame({"n": [5, 6]}, index=index)
    assert tables.describe(frame) == {"columns": ["x", "index 1", "n"], "rows": 2}
    assert tables.page(frame, 0, 5, 1) == [["b", "a"], [1, 2], [6, 5]]


def test_variables_of_comprehensions_are_their_own() -> None:
    assert set(cell.names("[a := b for b in c if (d := b)]")["binds"]) == {"a", "d"}


def test_patterns_bind() -> None:
    source = "match a:\n  case {'b': c, **d}: pass\n  case [e, *f] as g: pass"
    assert set(cell.names(source)["binds"]) == set("cdefg")


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("", None),
        ("x = 1", None),
        ("'text'", "text"),
        ("'é'; str(\n1)", "1"),
        ("'é' ;", None),
        ("if True:\n  1", None),
    ],
)
def test_a_cell_has_the_value_of_its_final_expression_alone(source: str, value: object) -> None:
    assert cell.run(source, "a.livemd", 3, {}, print)[0] == value


def test_a_cell_leaves_its_names_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    for name in ("display", "one", "rich", "html"):
        monkeypatch.setattr(main, name, None, raising=False)
    shown: list[tuple[Any, Any, Any]] = []
    source = "one = 1\nrich = html()\ndisplay(2, rich)\nif one > 1: never = 1\none + 4"
    variables = {"html": Html}
    value, bound, figures = cell.run(source, None, 1, variables, lambda *args: shown.append(args))
    assert [(mime, data) for mime, data, _obj in shown] == [
        ("text/plain", "2"),
        ("text/html", "<b>"),
    ]
    assert (value, bound["one"], figures) == (5, 1, [])
    assert isinstance(bound["rich"], Handle)
    assert "never" not in bound
