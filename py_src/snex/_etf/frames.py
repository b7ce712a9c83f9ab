"""Data frames and series, as Arrow streams: `Snex.Arrow` in Elixir.

pandas, polars and pyarrow themselves write and read the streams. Recognizing a frame imports nothing, because its library is
loaded. pyarrow writes pandas' frames and those of libraries that Snex does not know, and is imported for that. A frame from
Elixir becomes one of the requested library, which is imported if necessary.

A series is sent as a frame whose first column it is. The column of a series without a name has an empty name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

from .scalars import Arrow, NoFormError
from .terms import Atom

if TYPE_CHECKING:
    from collections.abc import Callable

# ---- To Elixir ------------------------------------------------------------------------------------

_NAME, _STRUCT = Atom("__struct__"), Atom("Elixir.Snex.Arrow")
_FRAME, _SERIES = Atom("frame"), Atom("series")
_KIND, _DATA = Atom("kind"), Atom("data")

if TYPE_CHECKING:
    # Returns the stream of a frame or series.
    Writer = Callable[[Any], memoryview]


def _converter(kind: Atom, write: Writer) -> Callable[[Any], object]:
    return _guarded(lambda value: _arrow(kind, write(value)))


def _arrow(kind: Atom, data: memoryview) -> Arrow:
    return Arrow({_NAME: _STRUCT, _KIND: kind, _DATA: data})


def _guarded(convert: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return a function whose errors say why a library cannot convert a frame."""

    def guarded(value: object) -> object:
        try:
            return convert(value)
        except (NoFormError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            raise NoFormError(_reason(error)) from None

    return guarded


def _reason(error: Exception) -> str:
    """Return why a library cannot write a frame. pyarrow names the column in the second argument."""
    said = "; ".join(str(part).strip().rstrip(".") for part in reversed(error.args))
    return f"{said or type(error).__name__}; convert that column, for instance with .astype(str)"


def _pyarrow(what: str) -> Any:  # noqa: ANN401
    module = _imported("pyarrow")
    if module is None:
        msg = f"{what} needs pyarrow, which is not installed; add pyarrow to Python's dependencies"
        raise NoFormError(msg)
    return module


def _write(table: Any) -> memoryview:  # noqa: ANN401
    """Return the stream of a pyarrow table."""
    names = table.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"two columns are called {twice!r}; rename one of them"
        raise NoFormError(msg)
    arrow, ipc = sys.modules["pyarrow"], import_module("pyarrow.ipc")
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if arrow.types.is_dictionary(field.type) and column.null_count:
            chunks = [_without_codes_of_nulls(arrow, chunk) for chunk in column.chunks]
            table = table.set_column(index, field, arrow.chunked_array(chunks, field.type))
    sink = arrow.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    # A view of bytes: any other view would be encoded as an array.
    return memoryview(sink.getvalue()).cast("B")


def _without_codes_of_nulls(arrow: Any, chunk: Any) -> Any:  # noqa: ANN401
    """Return an array of categories whose nulls have a valid code: pandas leaves -1 there, which polars does not read."""
    codes = chunk.indices
    if not codes.null_count:
        return chunk
    buffers = [codes.is_valid().buffers()[1], codes.fill_null(0).buffers()[1]]
    codes = arrow.Array.from_buffers(codes.type, len(codes), buffers, codes.null_count)
    return arrow.DictionaryArray.from_arrays(codes, chunk.dictionary, ordered=chunk.type.ordered)


def pandas(module: Any) -> dict[type, Callable[[Any], object]]:  # noqa: ANN401
    """Return the converters of pandas' types. An index other than the default one becomes columns, after the others."""

    def frame(value: Any) -> memoryview:  # noqa: ANN401
        if not value.columns.is_unique:
            twice = value.columns[value.columns.duplicated()][0]
            msg = f"two columns are called {twice!r}; rename one of them"
            raise NoFormError(msg)
        return _write(_pyarrow("a pandas frame").Table.from_pandas(value))

    def series(value: Any) -> memoryview:  # noqa: ANN401
        return frame(value.to_frame("" if value.name is None else value.name))

    return {
        module.DataFrame: _converter(_FRAME, frame),
        module.Series: _converter(_SERIES, series),
    }


def polars(module: Any) -> dict[type, Callable[[Any], object]]:  # noqa: ANN401
    """Return the converters of polars' types."""

    def has_objects(dtype: Any) -> bool:  # noqa: ANN401
        inner = [field.dtype for field in getattr(dtype, "fields", ())]
        inner += [dtype.inner] if hasattr(dtype, "inner") else []
        return dtype == module.Object or any(map(has_objects, inner))

    def frame(value: Any) -> memoryview:  # noqa: ANN401
        for name, dtype in value.schema.items():
            # polars would write their addresses in memory.
            if has_objects(dtype):
                msg = (
                    f"its column {name!r} contains Python objects; convert that column, or drop it"
                )
                raise NoFormError(msg)
        sink = BytesIO()
        # With the types that every reader knows.
        value.write_ipc_stream(sink, compat_level=module.CompatLevel.oldest())
        return sink.getbuffer()

    def lazy(_value: object) -> object:
        msg = "it has not been computed; use .collect()"
        raise NoFormError(msg)

    return {
        module.DataFrame: _converter(_FRAME, frame),
        module.Series: _converter(_SERIES, lambda value: frame(value.to_frame())),
        module.LazyFrame: lazy,
    }


def pyarrow(module: Any) -> dict[type, Callable[[Any], object]]:  # noqa: ANN401
    """Return the converters of pyarrow's types."""

    def batch(value: object) -> memoryview:
        return _write(module.Table.from_batches([value]))

    def array(value: object) -> memoryview:
        return _write(module.table([value], names=[""]))

    return {
        module.Table: _converter(_FRAME, _write),
        module.RecordBatch: _converter(_FRAME, batch),
        module.Array: _converter(_SERIES, array),
        module.ChunkedArray: _converter(_SERIES, array),
    }


def _foreign(value: object) -> object:
    module = _pyarrow("an Arrow stream")
    # A stream can be read only once, so it is read as an array; that of a frame is an array of structs.
    array = module.chunked_array(value)
    if not module.types.is_struct(array.type):
        return _arrow(_SERIES, _write(module.table([array], names=[""])))
    return _arrow(_FRAME, _write(module.Table.from_struct_array(array)))


# Converts an object of any other library that has `__arrow_c_stream__`.
stream = _guarded(_foreign)


# ---- From Elixir ----------------------------------------------------------------------------------


def _imported(name: str) -> Any:  # noqa: ANN401
    """Return a module, or `None` if it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def _table(data: Any) -> Any:  # noqa: ANN401
    return import_module("pyarrow.ipc").open_stream(data).read_all()


def _to_pandas(data: Any, is_series: bool) -> object:  # noqa: ANN401, FBT001 - internal
    table = _table(data)
    frame = table.to_pandas()
    if b"pandas" not in (table.schema.metadata or {}):
        _set_nullable(frame, table)
    if not is_series:
        return frame
    series = frame.iloc[:, 0]
    return series.rename(None) if series.name == "" else series


def _set_nullable(frame: Any, table: Any) -> None:  # noqa: ANN401
    """Use pandas' own dtypes for integers and booleans with nulls, which would otherwise be floats and objects.

    A stream that pandas wrote names the dtype of each column itself.
    """
    pandas, types = sys.modules["pandas"], sys.modules["pyarrow"].types
    for index, column in enumerate(table.columns):
        if not column.null_count:
            continue
        if types.is_integer(column.type):
            name = str(column.type)
            dtype = f"UI{name[2:]}" if name.startswith("u") else f"I{name[1:]}"
        elif types.is_boolean(column.type):
            dtype = "boolean"
        else:
            continue
        pandas_dtype = pandas.api.types.pandas_dtype(dtype)
        frame.isetitem(index, column.to_pandas(types_mapper=lambda _kind, d=pandas_dtype: d))


def _to_polars(data: Any, is_series: bool) -> object:  # noqa: ANN401, FBT001 - internal
    frame = sys.modules["polars"].read_ipc_stream(data)
    return frame.to_series() if is_series else frame


def _to_pyarrow(data: Any, is_series: bool) -> object:  # noqa: ANN401, FBT001 - internal
    table = _table(data)
    return table.column(0) if is_series else table


# For each library, what must be installed, and the function that makes its frames. Unless Elixir asks for another, the first
# that is installed is used.
_LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Any, bool], object]]] = {
    "pandas": (("pyarrow", "pandas"), _to_pandas),
    "polars": (("polars",), _to_polars),
    "pyarrow": (("pyarrow",), _to_pyarrow),
}


def load(is_series: bool, data: Any, library: str | None) -> object:  # noqa: ANN401, FBT001 - from a pickle
    """Return the frame or series of an Arrow stream.

    Raises:
        ValueError: if no library for it is installed, or it cannot read the stream.
    """
    for name in _LIBRARIES if library is None else (library,):
        needed, read = _LIBRARIES[name]
        try:
            missing = [module for module in needed if _imported(module) is None]
        except ImportError as error:
            msg = f"{name} cannot be imported: {error}"
            raise ValueError(msg) from error
        if not missing:
            break
    else:
        raise ValueError(_to_install(library))
    try:
        return read(data, is_series)
    except MemoryError:
        raise
    except Exception as error:
        msg = f"{name} cannot read it as an Arrow stream: {error}"
        raise ValueError(msg) from error


def _to_install(library: str | None) -> str:
    if library is None:
        return (
            "for a data frame, Python needs pandas and pyarrow, polars, or pyarrow; "
            "add one of them to Python's dependencies"
        )
    needed = " and ".join(sorted(_LIBRARIES[library][0]))
    return (
        f"for a data frame of {library}, Python needs {needed}; add that to Python's dependencies, "
        "or see the encoding option dataframe_as"
    )
