"""Arrays on their way to Elixir and back. The same from both encoders."""

from __future__ import annotations

import array
import ctypes
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.etf import A, trip

import snex
from snex._etf import arrays, loading
from snex._etf.encoder import Settings, encode, encode_pure
from snex._etf.handles import WithHandles
from snex._etf.scalars import NoFormError
from snex._etf.structs import _LAYOUTS, _layout
from snex._wire.body import dumps, load

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _encoders() -> Iterator[None]:
    """Leave no encoder behind."""
    yield
    Settings.encoders.clear()
    Settings.structs = None


def elixir(kind: str, bits: int, shape: tuple[int, ...], data: bytes) -> dict[object, object]:
    return {
        A("__struct__"): A("Elixir.Snex.Array"),
        A("type"): (A(kind), bits),
        A("shape"): shape,
        A("data"): data,
    }


def of(value: Any, kind: str, bits: int) -> dict[object, object]:
    """Return what becomes of an array that is in the order of C and the byte order of the machine."""
    return elixir(kind, bits, value.shape, value.tobytes())


MASKED: Any = np.ma.masked_array
NAMES = {name: (type_.kind, type_.bits) for name, type_ in arrays.TYPES.items()}
NUMPYS = {name: type_.dtype for name, type_ in arrays.TYPES.items() if type_.dtype[1:].isdigit()}


class TestNumpy:
    @pytest.mark.parametrize("name", NUMPYS)
    @pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (2, 0, 3), (100, 200)])
    def test_an_array_keeps_its_type_shape_and_numbers(
        self, encoder: Any, name: str, shape: tuple[int, ...]
    ) -> None:
        size = int(np.prod(shape))
        value = np.arange(size).astype(NUMPYS[name]).reshape(shape)
        expected = of(value, *NAMES[name])
        assert trip(encoder, value) == expected
        assert trip(encoder, {"a": [value, (value,)]}) == {b"a": [expected, (expected,)]}
        # And as it comes from Elixir.
        back = arrays.received(name, shape, bytearray(value.tobytes()))
        assert isinstance(back, np.ndarray)
        assert back.flags.writeable
        assert back.dtype == value.dtype
        assert np.array_equal(back, value)

    def test_booleans_are_numbers(self, encoder: Any) -> None:
        assert trip(encoder, np.array([True, False])) == elixir("u", 8, (2,), b"\1\0")

    @pytest.mark.parametrize("dtype", ["i2", "f4", "f8", "c8", "c16", "f2", "u8"])
    def test_the_other_byte_order_and_other_orders_in_memory_are_made_right(
        self, encoder: Any, dtype: str
    ) -> None:
        plain = np.arange(60_000).reshape(100, 200, 3).astype(dtype)
        other = plain.astype(plain.dtype.newbyteorder("S"))
        fortran = np.asfortranarray(plain)
        for value in (other, fortran, np.asfortranarray(other)):
            assert trip(encoder, value) == trip(encoder, plain)
        for value in (
            plain[::-1],
            plain[:, ::2, ::-1],
            plain.T,
            other[5:, ::-3],
            plain[:0],
            plain[3, 4, 1:2],
        ):
            assert trip(encoder, value) == trip(encoder, np.array(value, dtype, order="C"))
        spread = np.broadcast_to(plain[0, 0], (5, 3))
        assert trip(encoder, spread) == trip(encoder, spread.copy())
        unaligned = np.frombuffer(b"x" + plain.tobytes(), np.dtype(dtype), offset=1)
        assert trip(encoder, unaligned) == trip(encoder, plain.reshape(-1))

    def test_subclasses_and_what_cannot_be_written_are_arrays(self, encoder: Any) -> None:
        class Mine(np.ndarray[Any, Any]):
            def __array_finalize__(self, _obj: object) -> None:
                pass

            def tobytes(self, _order: Any = None) -> bytes:
                raise AssertionError

        value = np.arange(6, dtype="i4").reshape(2, 3)
        expected = of(value, "s", 32)
        assert trip(encoder, value.view(Mine)) == expected
        assert trip(encoder, value.T.copy().T.view(Mine)) == expected
        value.flags.writeable = False
        assert trip(encoder, value) == expected

    def test_large_ones_are_not_copied(self, encoder: Any) -> None:
        value = np.zeros((512, 1024), "f4")
        parts = encoder([value, value])
        views = [part for part in parts if isinstance(part, memoryview)]
        assert [view.nbytes for view in views] == [value.nbytes] * 2
        value[0, 0] = 1
        assert all(view[:4] == value[0, 0].tobytes() for view in views)

    def test_one_is_held_while_it_is_written(self, encoder: Any) -> None:
        value = np.zeros(100_000)
        parts = encoder(value)
        # Numpy counts references; since Python 3.14 a caller's own is not among them, and it would resize below any view.
        if sys.implementation.name == "cpython" and sys.version_info < (3, 14):
            with pytest.raises(ValueError, match="resize"):
                value.resize(10)
        assert b"".join(parts).endswith(bytes(800_000))

    @pytest.mark.parametrize(
        ("value", "remedy"),
        [
            (np.array([object()]), ".tolist()"),
            (np.array([1, None]), ".tolist()"),
            (np.array(["a"]), ".tolist()"),
            (np.array([b"a"]), ".tolist()"),
            (np.zeros(2, [("a", "i4"), ("b", "f8")]), "array.dtype.names"),
            (np.array(["2026-01-01"], "M8[D]"), "list(array)"),
            (np.array([1], "m8[s]"), "astype('int64')"),
            (np.zeros(2, "V3"), ".astype()"),
            (MASKED([1, 2], [0, 1]), ".filled(value)"),
            (MASKED([1, 2]), ".filled(value)"),
        ],
    )
    def test_others_are_refused_with_their_place_and_a_remedy(
        self, encoder: Any, value: Any, remedy: str
    ) -> None:
        with pytest.raises(TypeError) as refusal:
            encoder({"rows": [1, value]})
        assert str(refusal.value).startswith(
            "['rows'][1]: Cannot serialize object of <class 'numpy."
        )
        assert remedy in str(refusal.value)
        parts = encoder([value], auto=True)
        assert type(parts) is WithHandles
        assert parts.objects == [value] or parts.objects[0] is value

    @pytest.mark.skipif(np.dtype("longdouble").itemsize == 8, reason="it is a float here")
    def test_larger_floats_are_refused(self, encoder: Any) -> None:
        with pytest.raises(TypeError, match=r"astype\('float64'\)"):
            encoder(np.zeros(1, "longdouble"))
        with pytest.raises(TypeError, match=r"astype\('complex128'\)"):
            encoder(np.zeros(1, "clongdouble"))

    def test_encoders_of_the_user_come_first(self, encoder: Any) -> None:
        value = np.arange(3)
        snex.register_encoder(np.ndarray, lambda value: value.tolist())
        assert trip(encoder, [value]) == [[0, 1, 2]]
        Settings.encoders.clear()

        def custom(value: object) -> object:
            if isinstance(value, np.ndarray):
                return "mine"
            raise TypeError

        snex.set_custom_encoder(custom)
        assert trip(encoder, [value]) == [b"mine"]
        snex.set_custom_encoder(lambda _value: (_ for _ in ()).throw(TypeError("unknown")))
        assert trip(encoder, value) == of(value, "s", 64)

    def test_a_tensor_is_laid_out_as_the_vm_says(self, encoder: Any) -> None:
        first, *others = _layout(
            "Nx.Tensor", "type", "shape", "names", "data", vectorized_axes=b"j"
        )
        (state,) = _layout("Nx.BinaryBackend", "state")
        others[-1] += state
        Settings.structs = {**_LAYOUTS, "tensor": (first, *others)}
        value = np.arange(6, dtype="f4").reshape(2, 3)
        tensor = {
            A("__struct__"): A("Elixir.Nx.Tensor"),
            A("vectorized_axes"): [],
            A("type"): (A("f"), 32),
            A("shape"): (2, 3),
            A("names"): [None, None],
            A("data"): {A("__struct__"): A("Elixir.Nx.BinaryBackend"), A("state"): value.tobytes()},
        }
        assert trip(encoder, value) == tensor
        scalar = trip(encoder, value[1, 2])
        assert scalar == 5.0
        single = trip(encoder, np.array(5, "f4"))
        assert (single[A("shape")], single[A("names")]) == ((), [])
        # Nx has no tensors without elements.
        assert trip(encoder, value[:0]) == elixir("f", 32, (0, 3), b"")

    def test_a_reply_that_is_too_large_is_refused(self, encoder: Any) -> None:
        snex._etf.encoder.set_reply_limit(100_000)
        try:
            with pytest.raises(ValueError, match="too large for Elixir"):
                encoder(np.zeros(100_000))
            with pytest.raises(ValueError, match="too large for Elixir"):
                encoder(np.zeros((200_000, 2), "u1")[:, 0])
        finally:
            snex._etf.encoder.set_reply_limit(2 << 30)


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="ml_dtypes is for CPython")
class TestMlDtypes:
    @pytest.mark.parametrize("name", ["bf16", "f8", "f8_e4m3fn"])
    def test_small_floats_are_those_of_ml_dtypes(self, encoder: Any, name: str) -> None:
        import ml_dtypes

        dtype = getattr(ml_dtypes, arrays.TYPES[name].dtype)
        value = np.array([[1, -2, 0.5]]).astype(dtype)
        assert trip(encoder, value) == of(value, *NAMES[name])
        assert trip(encoder, value[:, ::-1]) == of(value[:, ::-1], *NAMES[name])
        back: Any = arrays.received(name, (1, 3), bytearray(value.tobytes()))
        assert back.dtype == dtype
        assert np.array_equal(back, value)

    def test_their_numbers_are_numbers(self, encoder: Any) -> None:
        import ml_dtypes

        value = np.array([1.5, -0.5], ml_dtypes.bfloat16)
        assert trip(encoder, [value[0], ml_dtypes.float8_e5m2(2), ml_dtypes.int4(3)]) == [
            1.5,
            2.0,
            3,
        ]

    def test_those_that_elixir_has_not_are_refused(self, encoder: Any) -> None:
        import ml_dtypes

        with pytest.raises(TypeError, match="Elixir has no arrays of int4"):
            encoder(np.zeros(3, ml_dtypes.int4))

    def test_without_it_they_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "ml_dtypes", raising=False)
        with pytest.raises(ValueError, match="import ml_dtypes"):
            arrays.received("bf16", (1,), bytearray(2))


class TestViews:
    @pytest.fixture(autouse=True)
    def _no_numpy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "numpy")

    @pytest.mark.parametrize("name", [name for name, type_ in arrays.TYPES.items() if type_.format])
    @pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (0, 3), (100, 200)])
    def test_without_numpy_an_array_is_a_view_with_its_shape_and_format(
        self, encoder: Any, name: str, shape: tuple[int, ...]
    ) -> None:
        if name == "f16" and (sys.version_info < (3, 12) or sys.implementation.name == "pypy"):
            with pytest.raises(ValueError, match="import numpy first"):
                arrays.received(name, shape, bytearray())
            return
        type_ = arrays.TYPES[name]
        size = type_.size
        for length in shape:
            size *= length
        data = bytes(i % 251 for i in range(size))
        view = arrays.received(name, shape, bytearray(data))
        assert isinstance(view, memoryview)
        assert not view.readonly
        assert (view.format, tuple(view.shape or ()), view.tobytes()) == (type_.format, shape, data)
        if name != "u8" or len(shape) != 1:
            assert trip(encoder, [view]) == [elixir(type_.kind, type_.bits, shape, data)]

    @pytest.mark.parametrize("name", ["c64", "c128", "bf16", "f8"])
    def test_what_no_view_can_have_needs_numpy(self, name: str) -> None:
        with pytest.raises(ValueError, match="import numpy first"):
            arrays.received(name, (1,), bytearray(arrays.TYPES[name].size))

    def test_nor_axes_without_length_behind_the_first(self) -> None:
        with pytest.raises(ValueError, match="import numpy first"):
            arrays.received("u8", (2, 0), bytearray())

    def test_plain_bytes_and_other_formats_are_binaries(self, encoder: Any) -> None:
        class Pair(ctypes.Structure):
            _fields_ = (("a", ctypes.c_int8), ("b", ctypes.c_int8))

        for view in (
            memoryview(b"abc"),
            memoryview(b"abc")[::-1],
            memoryview(b"abc").cast("c"),
            memoryview((Pair * 2)()),
            memoryview((ctypes.c_ubyte * 3)(1, 2, 3)),
        ):
            assert trip(encoder, view) == view.tobytes()

    def test_views_of_numbers_are_arrays_however_they_lie(self, encoder: Any) -> None:
        ints = memoryview(array.array("i", range(40_000)))
        for view in (ints, ints[::2], ints[::-1], ints[5:5], ints[:7]):
            assert trip(encoder, [view]) == [elixir("s", 32, (len(view),), view.tobytes())]
        assert trip(encoder, memoryview(array.array("d", [1.5]))) == elixir(
            "f", 64, (1,), array.array("d", [1.5]).tobytes()
        )
        assert trip(encoder, memoryview(b"abcd").cast("B", (2, 2))) == elixir(
            "u", 8, (2, 2), b"abcd"
        )
        assert trip(encoder, memoryview(b"\1\0").cast("?")) == elixir("u", 8, (2,), b"\1\0")
        big_endian: Any = ctypes.c_int16.__ctype_be__  # type: ignore[attr-defined]
        big = (big_endian * 3)(1, 2, 3)
        assert trip(encoder, memoryview(big)) == elixir(
            "s", 16, (3,), array.array("h", [1, 2, 3]).tobytes()
        )

    def test_the_order_of_networks_is_made_right(self, encoder: Any) -> None:
        buffers: Any = pytest.importorskip("_testbuffer")
        view = memoryview(buffers.ndarray([1, 2], shape=[2], format="!h"))
        assert trip(encoder, view) == elixir("s", 16, (2,), array.array("h", [1, 2]).tobytes())

    def test_an_array_of_the_library_stays_a_list(self, encoder: Any) -> None:
        assert trip(encoder, array.array("d", [1.5])) == [1.5]

    def test_a_view_is_held_while_it_is_written(self, encoder: Any) -> None:
        data = bytearray(200_000)
        numbers, plain = memoryview(data).cast("H"), memoryview(data)
        parts = encoder([numbers, plain, data])
        numbers.release()
        plain.release()
        if sys.implementation.name == "cpython":
            with pytest.raises(BufferError):
                data.clear()
        assert b"".join(parts).count(bytes(200_000)) == 3

    def test_a_released_view_is_an_error_of_the_call(self, encoder: Any) -> None:
        view = memoryview(bytes(8)).cast("H")
        view.release()
        with pytest.raises(ValueError, match="released"):
            encoder([view])


class TestPickles:
    def pickled(self, name: str, shape: tuple[int, ...], data: bytes) -> Any:
        return dumps({"x": [1, Call(name, shape, bytearray(data))]}, 5)

    def test_an_array_is_named_with_its_place_when_it_cannot_be(self) -> None:
        assert load(self.pickled("u8", (2,), b"ab"), ())["x"][1].tolist() == [97, 98]  # type: ignore[index]
        with pytest.raises(
            ValueError, match=r"\['x'\]\[1\]: an array in Python has at most 64 axes"
        ):
            load(self.pickled("u8", (1,) * 65, b"a"), ())

    def test_with_too_few_bytes_it_cannot_be(self) -> None:
        with pytest.raises(TypeError):
            arrays.received("u8", (3,), bytearray(b"ab"))
        with pytest.raises(ValueError, match="too big"):
            arrays.received("f64", (2**40, 2**40), bytearray(b"ab"))


def test_no_array_has_more_or_fewer_bytes_than_its_shape() -> None:
    for data in (b"abc", b"abcde", b""):
        with pytest.raises(NoFormError, match=f"its shape needs 4 bytes, but it has {len(data)}"):
            arrays.form(arrays.TYPES["u16"], (2, 1), data)


class Call:
    def __init__(self, *args: object) -> None:
        self.args = args

    def __reduce__(self) -> Any:
        return loading.array, self.args


@given(st.data())
def test_any_part_of_an_array_is_what_numpy_says(data: Any) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    dtype = data.draw(st.sampled_from(["u1", "<i2", ">i4", "<f8", ">c8", "?"]))
    value = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    steps = st.sampled_from([None, 1, 2, -1, -2])
    value = value[tuple(slice(None, None, data.draw(steps)) for _ in shape)].transpose(
        data.draw(st.permutations(range(len(shape))))
    )
    for encoder in (encode, encode_pure):
        back = trip(encoder, value)
        native = value.dtype.newbyteorder("=")
        numbers = np.frombuffer(back[A("data")], native).reshape(back[A("shape")])
        assert np.array_equal(numbers, value)
