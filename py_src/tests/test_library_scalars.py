"""Scalars of numpy and pandas: each has the form of what Python itself has for it. The same from both encoders."""

# ruff: noqa: DTZ001 - these are the naive ones
from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from support.etf import trip


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.float32(1.5), 1.5),
        (np.float64(-0.25), -0.25),
        (np.int8(-7), -7),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),  # noqa: FBT003 - numpy's
        (np.complex64(1 + 2j), (1.0, 2.0)),
        (np.datetime64("2026-11-27"), dt.date(2026, 11, 27)),
        (np.datetime64("2026-11"), dt.date(2026, 11, 1)),
        (
            np.datetime64("2026-11-27T12:30:01.5", "ms"),
            dt.datetime(2026, 11, 27, 12, 30, 1, 500_000),
        ),
        (
            np.datetime64("2026-11-27T12:30:01.0000015", "ns"),
            dt.datetime(2026, 11, 27, 12, 30, 1, 1),
        ),
        (np.datetime64("NaT"), None),
        (np.timedelta64(90, "m"), dt.timedelta(minutes=90)),
        (np.timedelta64("NaT", "s"), None),
    ],
    ids=repr,
)
def test_one_of_numpy_is_what_python_has_for_it(encoder: Any, scalar: Any, plain: object) -> None:
    assert trip(encoder, {"a": [scalar]}) == trip(encoder, {"a": [plain]})


@pytest.mark.parametrize(
    ("scalar", "why"),
    [
        (np.longdouble(1), r"convert it with float\(\)"),
        (np.clongdouble(1), r"convert it with complex\(\)"),
        (np.timedelta64(1, "M"), "months vary in length"),
        (np.timedelta64(1, "Y"), "years vary in length"),
        (np.timedelta64(1), "it has no unit"),
        (np.datetime64(300_000, "Y"), "it is outside the range of Python's datetime"),
        (np.void(b"ab"), "numpy.void"),
    ],
    ids=repr,
)
def test_one_that_python_has_nothing_for_says_why(encoder: Any, scalar: Any, why: str) -> None:
    if scalar.dtype in {np.dtype("f8"), np.dtype("c16")}:
        pytest.skip("here it is no longer than Python's own")
    with pytest.raises(TypeError, match=why) as raised:
        encoder([scalar])
    assert "[0]" in str(raised.value)


def test_those_of_pandas(encoder: Any) -> None:
    pandas = pytest.importorskip("pandas")
    at = dt.datetime(2026, 11, 27, 12, 30, tzinfo=dt.timezone.utc)
    pairs = [
        (pandas.Timestamp("2026-11-27T12:30"), at.replace(tzinfo=None)),
        (pandas.Timestamp(at), at),
        (pandas.Timedelta(hours=36), dt.timedelta(hours=36)),
        (pandas.NaT, None),
        (pandas.NA, None),
    ]
    for scalar, plain in pairs:
        assert trip(encoder, [scalar]) == trip(encoder, [plain])
