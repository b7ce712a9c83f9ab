"""Data frames, with the libraries that they come from. The same from both encoders."""

# ruff: noqa: FBT003 - as in a pickle

from __future__ import annotations

import datetime as dt
import decimal
import sys
from typing import Any

import pytest
from support.etf import A, decode

from snex._etf import frames, loading
from snex._etf.encoder import Settings, encode
from snex._etf.handles import FRAME, WithHandles
from snex._wire.body import dumps, load

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")

UTC = dt.timezone.utc
COLUMNS = {
    "at": [dt.datetime(2026, 7, 1, 12, tzinfo=UTC), None],
    "big": [2**62 + 1, None],
    "flag": [True, None],
    "text": ["x", None],
    "price": [decimal.Decimal("1.50"), None],
    "list": [[1, 2], None],
    "day": [dt.date(2026, 1, 2), None],
}


def arrow(encoder: Any, value: object) -> tuple[str, bytes]:
    """Return the kind and the stream that a frame becomes, deep in a value."""
    parts = encoder({"k": [value]})
    assert type(parts) is WithHandles
    assert parts.objects == [FRAME]
    (struct,) = decode(b"".join(parts))[b"k"]
    assert struct[A("__struct__")] == A("Elixir.Snex.Arrow")
    return struct[A("kind")].name, struct[A("data")]


def in_pandas() -> Any:
    frame = pd.DataFrame({name: pd.Series(values) for name, values in COLUMNS.items()})
    return frame.assign(
        big=pd.array(COLUMNS["big"], "Int64"), flag=pd.array(COLUMNS["flag"], "boolean")
    )


def rows(frame: Any) -> Any:
    if isinstance(frame, pd.DataFrame):
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    return frame.to_pylist() if isinstance(frame, pa.Table) else frame.to_dicts()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
@pytest.mark.parametrize(
    "make",
    [
        in_pandas,
        lambda: pl.DataFrame(COLUMNS),
        lambda: pa.table(COLUMNS),
        lambda: pa.table(COLUMNS).to_batches()[0],
        lambda: pa.table(COLUMNS).to_reader(),
    ],
    ids=["pandas", "polars", "table", "batch", "reader"],
)
def test_a_frame_becomes_one_of_each_library(encoder: Any, make: Any, library: str) -> None:
    kind, data = arrow(encoder, make())
    assert kind == "frame"
    made = loading.frame(is_series=False, data=data, library=library)
    assert type(made).__module__.partition(".")[0] == library
    assert rows(made) == [
        dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)
    ]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: pd.Series([1, 2], name="s"), "s"),
        (lambda: pd.Series([1, 2], index=["p", "q"]), None),
        (lambda: pl.Series("s", [1, 2]), "s"),
        (lambda: pa.array([1, 2]), None),
        (lambda: pa.chunked_array([[1], [2]]), None),
    ],
)
def test_a_series_becomes_one_of_each_library(encoder: Any, make: Any, name: str | None) -> None:
    kind, data = arrow(encoder, make())
    assert kind == "series"
    in_pandas: Any = frames.load(True, data, "pandas")
    assert (list(in_pandas), in_pandas.name) == ([1, 2], name)
    in_polars: Any = frames.load(True, data, "polars")
    assert (in_polars.to_list(), in_polars.name) == ([1, 2], name or "")
    in_pyarrow: Any = frames.load(True, data, "pyarrow")
    assert in_pyarrow.to_pylist() == [1, 2]


class Foreign:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.inner.__arrow_c_stream__(requested_schema)


def test_what_has_an_arrow_stream_is_a_frame_or_a_series(encoder: Any) -> None:
    assert arrow(encoder, Foreign(pa.table({"a": [1]})))[0] == "frame"
    assert arrow(encoder, Foreign(pl.Series("s", [1])))[0] == "series"
    with pytest.raises(TypeError, match=r"\[0\]: Cannot serialize .*Foreign'>: .*no attribute"):
        encoder([Foreign(1)])


def test_categories_with_nulls_are_read_by_polars(encoder: Any) -> None:
    frame = pd.DataFrame({"c": pd.Categorical([None, "u", "v"], ["v", "u"], ordered=True)})
    _, data = arrow(encoder, frame)
    assert rows(frames.load(False, data, "polars")) == [{"c": None}, {"c": "u"}, {"c": "v"}]
    pd.testing.assert_frame_equal(frames.load(False, data, "pandas"), frame)


def test_pandas_dtypes_with_nulls_come_back_as_they_were(encoder: Any) -> None:
    dtypes = {"a": "int64[pyarrow]", "b": "Int32", "c": "bool[pyarrow]", "d": "boolean"}
    frame = pd.DataFrame({name: pd.array([1, None], dtype) for name, dtype in dtypes.items()})
    _, data = arrow(encoder, frame)
    pd.testing.assert_frame_equal(frames.load(False, data, "pandas"), frame)


def test_polars_writes_types_that_every_reader_knows(encoder: Any) -> None:
    frame = pl.DataFrame({"text": ["x", None], "bytes": [b"x", None]})
    _, data = arrow(encoder, frame)
    assert pa.ipc.open_stream(data).schema.types == [pa.large_string(), pa.large_binary()]


def test_numbers_with_nulls_keep_their_values_in_pandas(encoder: Any) -> None:
    numbers = pa.array([2**64 - 1, None], pa.uint64())
    table = pa.table({"a": numbers, "b": pa.array([1, 2], pa.int8()), "c": [True, None]})
    made: Any = frames.load(False, arrow(encoder, table)[1], "pandas")
    assert list(map(str, made.dtypes)) == ["UInt64", "int8", "boolean"]
    assert made["a"][0] == 2**64 - 1


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: pd.DataFrame({"a": [object()]}), "column a with type object; .*; convert that"),
        (lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'; rename"),
        (lambda: pa.table([[1], [2]], names=["a", "a"]), "two columns are called 'a'; rename"),
        (lambda: pl.DataFrame({"a": [1]}).lazy(), r"not been computed; use \.collect"),
        (
            lambda: pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}),
            "its column 'a' contains Python objects; convert",
        ),
    ],
)
def test_what_arrow_refuses_says_so_or_stays(encoder: Any, make: Any, why: str) -> None:
    value = {"frames": [make()]}
    with pytest.raises(TypeError, match=rf"(?s)\['frames'\]\[0\]: Cannot serialize .*{why}"):
        encoder(value)
    assert encoder(value, auto=True).objects == value["frames"]


def test_encoders_of_the_users_come_first(encoder: Any) -> None:
    Settings.encoders[pd.Series] = lambda series: series.tolist()
    try:
        assert decode(b"".join(encoder([pd.Series([1])]))) == [[1]]
    finally:
        Settings.encoders.clear()


def test_the_first_library_that_is_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = arrow(encode, pa.table({"a": [1]}))
    assert isinstance(frames.load(False, data, None), pd.DataFrame)
    # As if it were not there.
    missing = {"pandas"}
    monkeypatch.setattr(
        frames, "_imported", lambda name: None if name in missing else sys.modules[name]
    )
    assert isinstance(frames.load(False, data, None), pl.DataFrame)
    missing |= {"polars"}
    assert isinstance(frames.load(False, data, None), pa.Table)
    missing |= {"pyarrow"}
    with pytest.raises(
        ValueError, match="Python needs pandas and pyarrow, polars, or pyarrow; add"
    ):
        frames.load(False, data, None)
    with pytest.raises(ValueError, match="frame of polars, Python needs polars; add that"):
        frames.load(False, data, "polars")
    with pytest.raises(
        TypeError, match="a pandas frame needs pyarrow, which is not installed; add"
    ):
        encode(pd.DataFrame({"a": [1]}))


class Call:
    """Pickles as a frame that cannot be read."""

    def __reduce__(self) -> Any:
        return loading.frame, (False, b"garbage", "polars")


def test_what_is_no_stream_is_said_with_its_place() -> None:
    body = dumps((1, "", None, 1, {"x": [0, {"k": Call()}]}), 5)
    with pytest.raises(ValueError, match=r"the variable x\[1\]\['k'\]: polars cannot read it as"):
        load(body, ())
