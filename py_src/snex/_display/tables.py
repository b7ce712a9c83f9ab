"""Data frames of pandas, polars and pyarrow, a page at a time."""

from __future__ import annotations

import sys
from typing import Any

_FRAMES = (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"))


def library(obj: object) -> str | None:
    """Return the library of a data frame, or None for other objects. Imports nothing."""
    for name, cls in _FRAMES:
        frame = getattr(sys.modules.get(name), cls, None)
        if isinstance(frame, type) and isinstance(obj, frame):
            return name
    return None


def is_frame(obj: object) -> bool:
    """Return whether an object is a data frame.

    >>> is_frame({"a": [1]})
    False
    """
    return library(obj) is not None


def describe(frame: Any) -> dict[str, Any]:  # noqa: ANN401 - of any library
    """Return the names of a frame's columns, and the number of its rows."""
    columns, rows = _columns(frame), len(frame)
    return {"columns": [name for name, _column in columns], "rows": rows}


def page(
    frame: Any,  # noqa: ANN401 - as above
    offset: int,
    limit: int | None,
    order_by: int | None = None,
    descending: bool = False,  # noqa: FBT001, FBT002 - called from Elixir
) -> list[list[Any]]:
    """Return the values of some rows, as a list for each column; `order_by` is the number of a column."""
    columns = [column for _name, column in _columns(frame)]
    if order_by is not None:
        columns = _sorted(frame, columns, order_by, descending)
    end = len(frame) if limit is None else offset + limit
    # By position: pandas might take the numbers for labels.
    return [_values(getattr(column, "iloc", column)[offset:end]) for column in columns]


def _columns(frame: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - as above
    kind = library(frame)
    if kind == "pandas":
        index = [frame.index.get_level_values(level) for level in range(frame.index.nlevels)]
        if type(frame.index).__name__ == "RangeIndex":
            index = []
        numbered = enumerate(index)
        shown = [(str(level.name or f"index {number}"), level) for number, level in numbered]
        named = [(str(name), frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
        return shown + named
    if kind == "polars":
        return [(column.name, column) for column in frame.get_columns()]
    return list(zip(frame.column_names, frame.columns, strict=True))


def _values(column: Any) -> list[Any]:  # noqa: ANN401 - as above
    to_list = getattr(column, "to_list", None) or column.to_pylist
    return list(to_list())


def _sorted(frame: Any, columns: list[Any], number: int, descending: bool) -> list[Any]:  # noqa: ANN401, FBT001
    kind = library(frame)
    if kind == "polars":
        return list(frame.sort(frame.columns[number], descending=descending).get_columns())
    if kind == "pyarrow":
        direction = "descending" if descending else "ascending"
        return list(frame.sort_by([(frame.column_names[number], direction)]).columns)
    keys: Any = sys.modules["pandas"].Series(columns[number].array)
    order = keys.sort_values(ascending=not descending, kind="stable").index
    return [column.take(order) for column in columns]
