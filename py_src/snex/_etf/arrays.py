"""Arrays: those of numpy and others become an `Nx.Tensor` or a `Snex.Array`, and the other way round.

Nothing is imported for this. An array from the VM is a `numpy.ndarray` if numpy is loaded, and otherwise a `memoryview`.
"""

from __future__ import annotations

import sys
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from .memory import OnMemory, below
from .scalars import LARGE, LEAVES, NIL, Large, NoFormError, Raw, atom, flat, header
from .structs import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scalars import Piece

    Data = bytes | memoryview
    Shape = tuple[int, ...]


class Type(NamedTuple):
    """A type of numbers."""

    # The name of Elixir's atom, and the second element of its tuple.
    kind: str
    bits: int
    # Its name in numpy, or in the package `ml_dtypes`.
    dtype: str
    # Its format in a memoryview, if there is one.
    format: str = ""

    @property
    def size(self) -> int:
        """The bytes of one number."""
        return self.bits // 8


# By the name that the VM uses.
TYPES = {
    "u8": Type("u", 8, "u1", "B"),
    "u16": Type("u", 16, "u2", "H"),
    "u32": Type("u", 32, "u4", "I"),
    "u64": Type("u", 64, "u8", "Q"),
    "s8": Type("s", 8, "i1", "b"),
    "s16": Type("s", 16, "i2", "h"),
    "s32": Type("s", 32, "i4", "i"),
    "s64": Type("s", 64, "i8", "q"),
    "f16": Type("f", 16, "f2", "e"),
    "f32": Type("f", 32, "f4", "f"),
    "f64": Type("f", 64, "f8", "d"),
    "c64": Type("c", 64, "c8"),
    "c128": Type("c", 128, "c16"),
    "bf16": Type("bf", 16, "bfloat16"),
    "f8": Type("f", 8, "float8_e5m2"),
    "f8_e4m3fn": Type("f8_e4m3fn", 8, "float8_e4m3fn"),
}
_BY_DTYPE = {type_.dtype: type_ for type_ in TYPES.values()}
# Booleans become numbers in Elixir.
_BY_DTYPE["b1"] = TYPES["u8"]

ML_DTYPES = "ml_dtypes"
# The most axes of an array in numpy, and of a memoryview.
MOST_AXES = 64


# ---- Towards Elixir


def form(type_: Type, shape: Shape, data: Data) -> Piece:
    """Return a tensor; or an array if the application has no Nx, or if it is empty, which Nx does not allow.

    `data` has the numbers in C order and in the byte order of the machine; it is bytes, or a flat view of bytes.
    """
    size = len(data)
    expected = prod(shape) * type_.size
    if size != expected:
        msg = f"its shape needs {expected} bytes, but it has {size}"
        raise NoFormError(msg)
    head = _head(type_, shape, size) + header(109, size, "a binary of {} bytes")
    return head + data if size < LARGE else Large(head, data)


def _head(type_: Type, shape: Shape, size: int) -> bytes:
    """Return what precedes a binary of `size` bytes."""
    values = [
        b"h\x02" + atom(type_.kind) + b"a" + bytes((type_.bits,)),
        _tuple(shape),
    ]
    layout = layout_of("tensor") if size else None
    if layout is None:
        layout = layout_of("array")
    else:
        names = header(108, len(shape), "{} axes") + atom("nil") * len(shape) + NIL
        values.append(names if shape else NIL)
    assert layout is not None  # noqa: S101 - the VM has this one
    *before, last = layout
    return b"".join([part for pair in zip(before, values, strict=True) for part in pair]) + last


def _tuple(shape: Shape) -> bytes:
    count = len(shape)
    head = b"h" + bytes((count,)) if count < 256 else header(105, count, "{} axes")  # noqa: PLR2004 - one byte
    integer: Any = LEAVES[int]
    return head + b"".join(map(integer, shape))


def type_named(dtype: str) -> Type | None:
    """Return the type with a name of numpy's, which has no byte order.

    >>> type_named("f4").kind
    'f'
    """
    return _BY_DTYPE.get(dtype)


# numpy's kinds of numbers, by the codes of formats. The size is that of an item.
_CODES = {
    **dict.fromkeys("bhilqn", "i"),
    **dict.fromkeys("BHILQN", "u"),
    **dict.fromkeys("efd", "f"),
    **dict.fromkeys(("Zf", "Zd", "F", "D"), "c"),
    "?": "b",
}
_NATIVE = {"@", "=", "<" if sys.byteorder == "little" else ">"}
_FOREIGN = {"<", ">", "!"} - _NATIVE


def of_view(view: memoryview) -> Piece | None:
    """Return a view of numbers as an array; None for plain bytes, and for any other format."""
    code = view.format
    order = code[0] if code[:1] in _NATIVE | _FOREIGN else "="
    code = code.removeprefix(order)
    if code not in _CODES or (code == "B" and view.ndim == 1):
        return None
    type_ = type_named(f"{_CODES[code]}{view.itemsize}")
    if type_ is None:
        return None
    # For a single number, PyPy has `None`.
    shape = tuple(view.shape or ())
    if order in _FOREIGN:
        return form(type_, shape, swapped(view.tobytes(), type_))
    return form(type_, shape, flat(view))


def swapped(data: bytes, type_: Type) -> bytes:
    """Return numbers in the other byte order.

    >>> swapped(b"abcd", TYPES["u16"])
    b'badc'
    """
    size = type_.size // 2 if type_.kind == "c" else type_.size
    result = bytearray(len(data))
    for index in range(size):
        result[index::size] = data[size - 1 - index :: size]
    return bytes(result)


MASKED = (
    "it is masked; use .filled(value), or .tolist(), which has None in place of masked elements"
)


def of_numpy(module: Any) -> Callable[[Any], Raw | OnMemory]:  # noqa: ANN401 - numpy
    """Return the converter of numpy's arrays."""

    def array(value: Any) -> Raw | OnMemory:  # noqa: ANN401 - one of numpy's
        masked = sys.modules.get("numpy.ma")
        if masked is not None and isinstance(value, masked.MaskedArray):
            raise NoFormError(MASKED)
        plain = module.asarray(value)
        dtype = plain.dtype
        type_ = _type_of(dtype)
        if type_ is None:
            raise NoFormError(_why_not(dtype))
        shape = plain.shape
        if not dtype.isnative:
            plain = plain.astype(dtype.newbyteorder("="))
        memory = below(plain)
        if memory is not None:
            return OnMemory(_head(type_, shape, len(memory)), memory)
        if plain.flags.c_contiguous:
            return Raw(form(type_, shape, memoryview(plain.reshape(-1).view("u1"))))
        return Raw(form(type_, shape, plain.tobytes()))

    return array


def _type_of(dtype: Any) -> Type | None:  # noqa: ANN401 - numpy's
    if dtype.type.__module__ == ML_DTYPES:
        return type_named(dtype.name)
    return type_named(f"{dtype.kind}{dtype.itemsize}")


def _why_not(dtype: Any) -> str:  # noqa: ANN401 - numpy's
    if dtype.names is not None:
        return "its elements have fields; send them one by one: {name: array[name] for name in array.dtype.names}"
    kind = dtype.kind
    if kind in "mM":
        return (
            "Elixir has no arrays of times; use .astype('int64') for their numbers, or list(array)"
        )
    if kind == "O":
        return "its elements are objects; use .tolist(), or .astype() if they are numbers"
    if kind in "SUT":
        return "its elements are text; use .tolist()"
    if kind in "fc":
        return f"Elixir has no arrays of {dtype.name}; use .astype('{'float64' if kind == 'f' else 'complex128'}')"
    return f"Elixir has no arrays of {dtype.name}; use .astype()"


# ---- From Elixir


def received(name: str, shape: Shape, data: bytearray | memoryview) -> object:
    """Return an array on filled memory: one of numpy's, or a memoryview if numpy is not loaded.

    Raises:
        ValueError: if neither can hold it.

    >>> received("u16", (2,), bytearray(b"abcd")).tolist()
    [25185, 25699]
    """
    return home(name, shape)(data)


def numpy_array() -> object:
    """Return the class of numpy's arrays, if numpy is loaded."""
    # If it has no such attribute yet, it is being imported.
    return getattr(sys.modules.get("numpy"), "ndarray", None)


def home(name: str, shape: Shape) -> Callable[[bytearray | memoryview], object]:
    """Return a function that makes an array of its memory.

    Raises:
        ValueError: if neither numpy nor a memoryview can hold such an array.
    """
    type_ = TYPES[name]
    if len(shape) > MOST_AXES:
        msg = f"an array in Python has at most {MOST_AXES} axes, but this one has {len(shape)}: reshape it in Elixir"
        raise ValueError(msg)
    ndarray: Any = numpy_array()
    if ndarray is not None:
        dtype = _dtype(type_)
        return lambda data: ndarray(shape, dtype, data)
    if not _can_view(type_.format):
        msg = f"a memoryview cannot have the type {name}: import numpy first, for instance in the init script"
        raise ValueError(msg)
    if 0 in shape[1:]:
        msg = f"a memoryview cannot have the shape {shape}: import numpy first, for instance in the init script"
        raise ValueError(msg)
    return lambda data: _view(type_, shape, data)


def _can_view(code: str) -> bool:
    # Half floats since Python 3.12.
    try:
        view: Any = memoryview(bytes(8))
        return bool(code) and view.cast(code).format == code
    except ValueError:
        return False


def _dtype(type_: Type) -> object:
    if type_.dtype[1:].isdigit():
        return type_.dtype
    dtype = getattr(sys.modules.get(ML_DTYPES), type_.dtype, None)
    if dtype is None:
        msg = (
            f"numpy itself has no {type_.dtype}: import ml_dtypes first, for instance in the init script, "
            "or convert it with Nx.as_type/2"
        )
        raise ValueError(msg)
    return dtype


def _view(type_: Type, shape: Shape, data: bytearray | memoryview) -> object:
    if shape and not shape[0]:
        # A cast cannot make an empty view, but a slice can.
        one: Any = memoryview(bytearray(prod(shape[1:]) * type_.size))
        return one.cast(type_.format, (1, *shape[1:]))[:0]
    view: Any = memoryview(data)
    return view if (type_.format, len(shape)) == ("B", 1) else view.cast(type_.format, shape)
