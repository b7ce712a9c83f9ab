"""Arrays of libraries that Snex does not know by name. The same from both encoders."""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.etf import A, trip

import snex
from snex._etf import arrays, dlpack
from snex._etf.encoder import Settings, encode, encode_pure
from snex._etf.handles import WithHandles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="there are no capsules that can be read"
)


@pytest.fixture(params=[True, False], ids=["numpy", "no numpy"])
def _loaded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        # Of the types of its arrays, the encoders know already.
        trip(encode_pure, np.zeros(1))
        monkeypatch.delitem(sys.modules, "numpy")


@pytest.fixture(autouse=True)
def _encoders() -> Iterator[None]:
    """Leave no encoder behind."""
    yield
    Settings.encoders.clear()


def refused(encoder: Any, value: object) -> str:
    """Return why a value is refused; where it may, it stays in Python."""
    with pytest.raises(TypeError) as refusal:
        encoder({"rows": [1, value]})
    text = str(refusal.value)
    assert text.startswith(f"['rows'][1]: Cannot serialize object of {type(value)}")
    parts = encoder([value], auto=True)
    assert type(parts) is WithHandles
    assert parts.objects[0] is value
    return text


class Interface:
    """An array that says where its numbers are; keeps them alive."""

    def __init__(self, keep: object, **described: Any) -> None:
        self.keep = keep
        self.described = described

    @property
    def __array_interface__(self) -> Any:
        return {"version": 3, **self.described}


def lying(value: Any) -> Interface:
    return Interface(value, **value.__array_interface__)


LAYOUTS: list[Callable[[Any], Any]] = [
    lambda a: a,
    lambda a: a.T,
    lambda a: a[::-1],
    lambda a: a[:, ::-2, 1:],
    lambda a: a[1],
    lambda a: a[1, 2, 0:1],
    lambda a: a[1, 2, 0:1].reshape(()),
    lambda a: a[:0],
    lambda a: a[:, :, :1],
    lambda a: np.broadcast_to(a[0, 0], (4, 2)),
    lambda a: np.asfortranarray(a),
]


@pytest.mark.usefixtures("_loaded")
class TestInterface:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", ["u1", "<i2", "<f4", ">f8", "<c16", ">c8", "?"])
    def test_an_array_is_what_numpy_makes_of_it(
        self, encoder: Any, dtype: str, layout: Any
    ) -> None:
        value = layout(np.arange(24).reshape(4, 3, 2).astype(dtype))
        assert trip(encoder, [lying(value)]) == [trip(encoder, value)]

    def test_large_ones_too(self, encoder: Any) -> None:
        value = np.arange(100_000, dtype="f8").reshape(1000, 100)
        for part in (value, value.T, value[::-3, ::2]):
            assert trip(encoder, lying(part)) == trip(encoder, part)

    def test_its_numbers_may_be_in_a_buffer(self, encoder: Any) -> None:
        data = bytearray(range(8))
        expected = trip(encoder, np.frombuffer(data, "<u2"))
        assert trip(encoder, Interface(0, typestr="<u2", shape=(4,), data=data)) == expected
        swapped = trip(encoder, np.frombuffer(data, ">u2", offset=2))
        assert (
            trip(encoder, Interface(0, typestr=">u2", shape=(3,), data=data, offset=2)) == swapped
        )
        back = Interface(0, typestr="|u1", shape=(2, 2), strides=(-4, -1), data=data, offset=6)
        assert trip(encoder, back)[A("data")] == bytes([6, 5, 2, 1])
        parts = encoder(Interface(0, typestr="|u1", shape=(100_000,), data=bytearray(100_000)))
        assert [part.nbytes for part in parts if isinstance(part, memoryview)] == [100_000]

    @pytest.mark.parametrize(
        ("described", "said"),
        [
            ({"shape": (5,)}, "beyond the 8 bytes of its data"),
            ({"shape": (2**60, 2**60)}, "too large"),
            ({"shape": (2,), "offset": 6}, "beyond the 8 bytes of its data"),
            ({"shape": (2,), "offset": -2}, "expected a number of bytes as offset"),
            ({"shape": (2,), "strides": (-2,)}, "beyond the 8 bytes of its data"),
            ({"shape": (2,), "strides": (7,)}, "beyond the 8 bytes of its data"),
            ({"shape": (2,), "strides": (2, 2)}, "expected a stride for each axis"),
            ({"shape": (2,), "strides": 2}, "expected integers as strides"),
            ({"shape": (-1,)}, "expected a shape of lengths"),
            ({"shape": (1,) * 65}, "expected a shape of lengths"),
            ({"shape": (1.5,)}, "expected integers as shape"),
            ({"shape": None}, "expected integers as shape"),
            ({"typestr": "<M8[s]"}, "expected the type of a number"),
            ({"typestr": "|V2"}, "expected the type of a number"),
            ({"typestr": "f4"}, "expected the type of a number"),
            ({"typestr": ""}, "expected the type of a number"),
            ({"typestr": None}, "expected the type of a number"),
            ({"data": "abc"}, "its data raised TypeError"),
            ({"data": None}, "its data raised TypeError"),
            ({"data": ()}, "expected an address"),
            ({"data": (None, False)}, "expected an address"),
            ({"data": (-1, False)}, "expected an address"),
            ({"data": (0, False)}, "the pointer to its data is null"),
            ({"mask": object()}, ".filled(value)"),
        ],
    )
    def test_one_that_lies_is_refused(
        self, encoder: Any, described: dict[str, Any], said: str
    ) -> None:
        value = Interface(0, **{"typestr": "<u2", "shape": (4,), "data": bytes(8), **described})
        if said == "too large":
            with pytest.raises(ValueError, match="too large for Elixir"):
                encoder([value])
        else:
            assert said in refused(encoder, value)

    def test_one_that_raises_is_refused(self, encoder: Any) -> None:
        class Raises:
            @property
            def __array_interface__(self) -> Any:
                msg = "not today"
                raise RuntimeError(msg)

        assert "its __array_interface__ raised RuntimeError: not today" in refused(
            encoder, Raises()
        )

        class NoDict:
            __array_interface__ = 5

        assert "expected a dict, got 5" in refused(encoder, NoDict())

    def test_encoders_of_the_user_come_first(self, encoder: Any) -> None:
        snex.register_encoder(Interface, lambda _value: "mine")
        assert trip(encoder, [lying(np.arange(3))]) == [b"mine"]


@given(st.data(), st.booleans())
def test_nothing_outside_of_a_buffer_is_read(data: Any, without_numpy: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever a description says: it is an array of bytes of the buffer, or refused."""
    size = data.draw(st.integers(0, 40))
    memory = bytes(range(100, 100 + size))
    axes = data.draw(st.integers(0, 3))
    lengths = st.one_of(st.integers(0, 4), st.sampled_from([2**31, 2**63, -1]))
    steps = st.one_of(st.integers(-9, 9), st.sampled_from([2**63, -(2**63)]))
    described = {
        "typestr": data.draw(st.sampled_from(["|u1", "<u2", ">u4", "<f8", "<c16"])),
        "shape": tuple(data.draw(lengths) for _ in range(axes)),
        "strides": data.draw(st.sampled_from([None, tuple(data.draw(steps) for _ in range(axes))])),
        "offset": data.draw(st.integers(-1, 50)),
        "data": memory,
    }
    for encoder in (encode, encode_pure):
        try:
            with pytest.MonkeyPatch.context() as patch:
                if without_numpy:
                    patch.delitem(sys.modules, "numpy")
                back = trip(encoder, Interface(0, **described))
        except (TypeError, ValueError):
            continue
        assert back[A("data")] == b"".join(one_by_one(**described))


def one_by_one(
    typestr: str, shape: tuple[int, ...], strides: Any, offset: int, data: bytes
) -> Iterator[bytes]:
    """Yield the bytes of each number, by its indexes."""
    size = int(typestr[2:])
    if strides is None:
        strides = tuple(math.prod(shape[axis + 1 :]) * size for axis in range(len(shape)))
    for indexes in itertools.product(*map(range, shape)) if math.prod(shape) else ():
        start = offset + sum(map(operator.mul, indexes, strides))
        assert 0 <= start <= len(data) - size
        number = data[start : start + size]
        yield number[::-1] if typestr[0] == ">" else number


class Numpy:
    """As another library's array: numpy's own DLPack, and nothing else of it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __dlpack__(self, **options: Any) -> Any:
        return self.value.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()


class Old(Numpy):
    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.value.__dlpack__()


_new_capsule: Any = None
if sys.implementation.name == "cpython":
    _new_capsule = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    )(("PyCapsule_New", ctypes.pythonapi))


class Made:
    """Makes its capsules by hand, whatever is in them."""

    def __init__(self, data: bytes, shape: tuple[int, ...], **fields: Any) -> None:
        self.device = (fields.pop("says", 1), 0)
        self.version = fields.pop("version", None)
        self.name = b"dltensor" if self.version is None else b"dltensor_versioned"
        self.memory = ctypes.create_string_buffer(data, max(len(data), 1))
        self.shape = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        strides = fields.pop("strides", None)
        self.strides = (ctypes.c_int64 * len(strides))(*strides) if strides else None
        self.tensor = dlpack._Tensor(
            data=ctypes.addressof(self.memory),
            device=fields.pop("device", 1),
            ndim=fields.pop("ndim", len(shape)),
            code=fields.pop("code", 1),
            bits=fields.pop("bits", 8),
            lanes=fields.pop("lanes", 1),
            byte_offset=fields.pop("byte_offset", 0),
        )
        if not fields.pop("no_shape", False):
            self.tensor.shape = ctypes.cast(self.shape, ctypes.POINTER(ctypes.c_int64))
        if self.strides is not None:
            self.tensor.strides = ctypes.cast(self.strides, ctypes.POINTER(ctypes.c_int64))
        if fields.pop("null", False):
            self.tensor.data = None
        assert not fields
        self.versioned = dlpack._Versioned(major=self.version or 1, tensor=self.tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **_options: Any) -> Any:
        struct = self.tensor if self.version is None else self.versioned
        return _new_capsule(ctypes.addressof(struct), self.name, None)


@cpython
@pytest.mark.usefixtures("_loaded")
class TestDLPack:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", ["u1", "i2", "f2", "f4", "f8", "c16", "c8", "?"])
    def test_an_array_is_what_numpy_makes_of_it(
        self, encoder: Any, dtype: str, layout: Any
    ) -> None:
        value = layout(np.arange(24).reshape(4, 3, 2).astype(dtype))
        expected = [trip(encoder, value)]
        if value.flags.writeable:
            assert trip(encoder, [Old(value)]) == expected
        if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
            assert trip(encoder, [Numpy(value)]) == expected

    def test_what_must_not_be_written_is_read(self, encoder: Any) -> None:
        value = np.arange(6, dtype="f4")
        value.flags.writeable = False
        assert trip(encoder, Numpy(value)) == trip(encoder, value)
        assert "its __dlpack__ raised BufferError" in refused(encoder, Old(value))

    def test_it_is_given_back_at_once(self, encoder: Any) -> None:
        value = np.arange(100_000)
        before = sys.getrefcount(value)
        for kind in (Numpy, Old):
            parts = encoder(kind(value))
            assert sys.getrefcount(value) == before
            assert len(b"".join(parts)) > value.nbytes

    def test_types_that_numpy_has_not(self, encoder: Any) -> None:
        for code, bits, name in ((4, 16, "bf16"), (10, 8, "f8_e4m3fn"), (12, 8, "f8")):
            size = bits // 8
            value = Made(bytes(range(2 * size)), (2,), code=code, bits=bits)
            type_ = arrays.TYPES[name]
            assert trip(encoder, value)[A("type")] == (A(type_.kind), type_.bits)
            assert trip(encoder, value)[A("data")] == bytes(range(2 * size))

    def test_one_made_by_hand_is_read(self, encoder: Any) -> None:
        for version in (None, 1):
            value = Made(b"abcdef", (2, 2), strides=(2, 1), byte_offset=1, version=version)
            assert trip(encoder, value)[A("data")] == b"bcde"
            assert trip(encoder, Made(b"", (0, 3), null=True, version=version))[A("data")] == b""
            assert trip(encoder, Made(b"a", (), no_shape=True, version=version))[A("shape")] == ()
        assert trip(encoder, Made(b"abc", (3,), device=3, says=3))[A("data")] == b"abc"

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"says": 2}, "it is on a CUDA device (number 0); move it to the CPU first"),
            ({"says": 99}, "it is on a device of type 99"),
            ({"device": 8}, "it is on a Metal device"),
            ({"ndim": -1}, "got -1"),
            ({"ndim": 65}, "expected a shape of 0 to 64 axes, got 65"),
            ({"no_shape": True}, "got 1 without lengths"),
            ({"shape": (-1,)}, "expected a shape without negative lengths, got (-1,)"),
            ({"null": True}, "the pointer to its data is null"),
            ({"lanes": 4}, "Elixir has no arrays of its type"),
            ({"bits": 4}, "Elixir has no arrays of its type"),
            ({"code": 3, "bits": 64}, "Elixir has no arrays of its type"),
            ({"code": 2, "bits": 128}, "Elixir has no arrays of its type"),
            ({"version": 2}, "has version 2.0, but Snex supports 1"),
        ],
    )
    def test_one_that_cannot_be_is_refused(
        self, encoder: Any, fields: dict[str, Any], said: str
    ) -> None:
        shape = fields.pop("shape", (3,)) if "shape" in fields else (3,)
        value = Made(b"abc", shape, **fields)
        fields["shape"] = shape
        assert said in refused(encoder, value)

    def test_one_that_is_too_large_is_not_read(self, encoder: Any) -> None:
        with pytest.raises(ValueError, match="too large for Elixir"):
            encoder(Made(b"abc", (2**62,)))
        with pytest.raises(ValueError, match="too large for Elixir"):
            encoder(Made(b"abc", (2**62, 2**62)))

    def test_one_that_raises_or_returns_something_else_is_refused(self, encoder: Any) -> None:
        class Raises(Made):
            def __dlpack__(self, **_options: Any) -> Any:
                msg = "requires grad"
                raise RuntimeError(msg)

        assert "its __dlpack__ raised RuntimeError: requires grad" in refused(
            encoder, Raises(b"a", (1,))
        )

        class NoDevice(Made):
            def __dlpack_device__(self) -> Any:
                return None

        assert "its __dlpack_device__ raised TypeError" in refused(encoder, NoDevice(b"a", (1,)))

        class NoCapsule(Made):
            def __dlpack__(self, **_options: Any) -> Any:
                return 5

        assert "it did not return a DLPack capsule" in refused(encoder, NoCapsule(b"a", (1,)))
        used = Made(b"a", (1,))
        used.name = b"used_dltensor"
        assert "has been used" in refused(encoder, used)


@cpython
@pytest.mark.parametrize("bits", [4, 12])
def test_numbers_that_are_no_whole_bytes_are_refused(encoder: Any, bits: int) -> None:
    assert f"code 1, {bits} bits" in refused(encoder, Made(b"abcd", (2,), bits=bits))


@cpython
@given(st.data(), st.booleans())
def test_whatever_a_capsule_says_it_is_an_array_or_refused(data: Any, without_numpy: bool) -> None:  # noqa: FBT001 - drawn
    """All but the address and the steps, which are taken on trust: those are such that all numbers are in the memory."""
    lengths = st.one_of(st.integers(0, 4), st.sampled_from([-1, 2**40, 2**62, -(2**63)]))
    shape = tuple(data.draw(lengths) for _ in range(data.draw(st.integers(0, 3))))
    fields = {
        "code": data.draw(st.integers(0, 17)),
        "bits": data.draw(st.sampled_from([0, 1, 4, 7, 8, 12, 16, 32, 64, 128, 255])),
        "lanes": data.draw(st.sampled_from([0, 1, 1, 1, 2, 65535])),
        "version": data.draw(st.sampled_from([None, 0, 1, 2, 2**32 - 1])),
        "device": data.draw(st.sampled_from([-1, 0, 1, 1, 1, 2, 3, 11, 2**31 - 1])),
        "says": data.draw(st.sampled_from([1, 1, 1, 2, "CPU", None])),
        "null": data.draw(st.booleans()),
        "no_shape": data.draw(st.booleans()),
        "ndim": data.draw(st.sampled_from([len(shape)] * 3 + [-1, 65, 2**31 - 1])),
    }
    memory = bytes(index % 251 for index in range(4**3 * 32))
    for encoder in (encode, encode_pure):
        try:
            with pytest.MonkeyPatch.context() as patch:
                if without_numpy:
                    patch.delitem(sys.modules, "numpy")
                back = trip(encoder, Made(memory, shape, **fields))
        except (TypeError, ValueError):
            continue
        assert back[A("shape")] == shape
        assert back[A("type")][1] == fields["bits"]
        assert len(back[A("data")]) == math.prod(shape) * back[A("type")][1] // 8
        assert memory.startswith(back[A("data")])


@pytest.mark.skipif(sys.implementation.name != "pypy", reason="the others have capsules")
def test_pypy_says_what_to_do(encoder: Any) -> None:
    assert "numpy.from_dlpack()" in refused(encoder, Numpy(np.arange(3)))


class TestBuffers:
    def test_numbers_are_arrays(self, encoder: Any) -> None:
        value = (ctypes.c_double * 3 * 2)()
        value[1][2] = 1.5
        assert trip(encoder, [value]) == [trip(encoder, np.array([[0, 0, 0], [0, 0, 1.5]]))]
        assert trip(encoder, ctypes.c_int32(7)) == trip(encoder, np.array(7, "i4"))

    def test_bytes_and_others_are_not(self, encoder: Any) -> None:
        class Pair(ctypes.Structure):
            _fields_ = (("a", ctypes.c_int8), ("b", ctypes.c_int8))

        memory = mmap.mmap(-1, 10)
        for value in (Pair(), (Pair * 2)(), (ctypes.c_ubyte * 3)(), memory):
            assert "convert it, see snex.register_encoder" in refused(encoder, value)
        memory.close()

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="such classes are new in 3.12")
    def test_a_class_with_a_buffer_of_its_own(self, encoder: Any) -> None:
        class Mine:
            def __init__(self, data: Any) -> None:
                self.data = data

            def __buffer__(self, _flags: int) -> memoryview:
                if isinstance(self.data, Exception):
                    raise self.data
                return memoryview(self.data)

        value = np.arange(3)
        assert trip(encoder, Mine(value)) == trip(encoder, value)
        for odd in (b"abc", RuntimeError("no"), ValueError("no")):
            refused(encoder, Mine(odd))
        parts = encoder([Mine(b"x"), Mine(value)], auto=True)
        assert len(parts.objects) == 1

    def test_the_buffer_is_held_until_it_is_written(self, encoder: Any) -> None:
        class Counted(bytearray):
            pass

        data = Counted(200_000)
        parts = encoder(memoryview(data).cast("d"))
        if sys.implementation.name == "cpython":
            with pytest.raises(BufferError):
                data.extend(b"x")
        del parts
        data.extend(b"x")
