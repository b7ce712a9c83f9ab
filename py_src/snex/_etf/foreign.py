"""Arrays of any other library: objects with a buffer of numbers, `__array_interface__` or `__dlpack__`."""

from __future__ import annotations

from itertools import product
from math import prod
from operator import index, mul
from typing import TYPE_CHECKING, Any

from .._wire.frame import Limit
from .arrays import MASKED, MOST_AXES, Type, form, numpy_array, of_view, swapped, type_named
from .handles import MRO
from .scalars import NoFormError, Raw, check_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arrays import Data, Shape

_attributes: Any = type.__dict__
_DICT = _attributes["__dict__"].__get__
_INTERFACE = "__array_interface__"
_DLPACK = "__dlpack__"


def converter(value: object) -> Callable[[object], Raw] | None:
    """Return the converter of an object to an array, if its class supports one; the object itself is not asked."""
    kind = type(value)
    if _has(kind, _INTERFACE) or _has(kind, _DLPACK):
        return array
    try:
        memoryview(value).release()  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - in Python, a class may have a buffer as well
        return None
    return array


def _has(kind: type, name: str) -> bool:
    return any(name in _DICT(base) for base in MRO(kind))


def array(value: Any) -> Raw:  # noqa: ANN401 - of any type
    """Return an object as an array: by its buffer if it has one, because a buffer's description can be trusted."""
    kind = type(value)
    view: memoryview | None
    try:
        view = memoryview(value)
    except Exception:  # noqa: BLE001 - as above
        view = None
    if view is not None:
        piece = of_view(view)
        if piece is not None:
            return Raw(piece)
        # The traceback of an error would keep the view alive.
        view.release()
    if _has(kind, _INTERFACE):
        return Raw(form(*_by_interface(value)))
    if _has(kind, _DLPACK):
        from .dlpack import read

        return Raw(form(*read(value)))
    raise NoFormError


def raised(what: str, error: Exception) -> NoFormError:
    """Return the error for an object whose own code raised one."""
    return NoFormError(f"its {what} raised {type(error).__name__}: {error}")


# ---- `__array_interface__`, as numpy describes it


def _by_interface(value: Any) -> tuple[Type, Shape, Data]:  # noqa: ANN401 - of any type
    try:
        described = value.__array_interface__
    except Exception as error:  # noqa: BLE001 - code of anybody's
        raise raised(_INTERFACE, error) from None
    if not isinstance(described, dict):
        raise _wrong("a dict", described)
    if described.get("mask") is not None:
        raise NoFormError(MASKED)
    type_, is_swapped = _type_of(described.get("typestr"))
    shape = _integers("integers as shape", described.get("shape"))
    if len(shape) > MOST_AXES or any(length < 0 for length in shape):
        raise _wrong("a shape of lengths", shape)
    strides = described.get("strides")
    if strides is not None:
        strides = _integers("integers as strides", strides)
        if len(strides) != len(shape):
            raise _wrong("a stride for each axis", strides)
    numbers = _numbers(value, described, Layout(type_.size, shape, strides))
    return type_, shape, swapped(bytes(numbers), type_) if is_swapped else numbers


def _wrong(expected: str, got: object) -> NoFormError:
    return NoFormError(f"its {_INTERFACE} is wrong: expected {expected}, got {got!r}")


def _type_of(text: object) -> tuple[Type, bool]:
    type_ = (
        type_named(text[1:]) if isinstance(text, str) and text[:1] in {"<", ">", "|", "="} else None
    )
    if type_ is None:
        raise _wrong("the type of a number, such as '<f4', as typestr", text)
    return type_, str(text)[0] == ">"


def _integers(what: str, values: object) -> tuple[int, ...]:
    try:
        return tuple(map(index, values))  # type: ignore[call-overload]
    except Exception:  # noqa: BLE001 - code of anybody's
        raise _wrong(what, values) from None


def _numbers(value: object, described: dict[object, object], layout: Layout) -> Data:
    data = described.get("data")
    if isinstance(data, tuple):
        pointer = data[0] if data else None
        if type(pointer) is not int or pointer < 0:
            raise _wrong("an address as data", pointer)
        return layout.at(pointer)
    offset = described.get("offset", 0)
    if type(offset) is not int or offset < 0:
        raise _wrong("a number of bytes as offset", offset)
    try:
        view = memoryview(value if data is None else data)  # type: ignore[arg-type]
        memory = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    except Exception as error:  # noqa: BLE001 - code of anybody's
        raise raised("data", error) from None
    numbers = layout.within(memory, offset)
    if numbers is None:
        msg = f"its {_INTERFACE} is wrong: it reaches beyond the {memory.nbytes} bytes of its data"
        raise NoFormError(msg)
    return numbers


class Layout:
    """How the numbers of an array lie in memory: possibly in another order, and with gaps."""

    def __init__(self, size: int, shape: Shape, strides: Shape | None) -> None:
        """Describe numbers of `size` bytes. `strides` are in bytes, from one number of an axis to the next.

        Raises:
            TooLargeError: if the numbers are more than a reply may have.
        """
        self._size = size
        self._shape = shape
        total = prod(shape) * size
        check_room(total, Limit.reply)
        dense = tuple(prod(shape[axis + 1 :]) * size for axis in range(len(shape)))
        # The stride of an axis with one number is arbitrary.
        strides = tuple(
            stride if length > 1 else usual
            for length, stride, usual in zip(shape, strides or dense, dense, strict=True)
        )
        self._dense = not total or strides == dense
        ways = [stride * (length - 1) for length, stride in zip(shape, strides, strict=True)]
        self._strides = strides
        self._dense_strides = dense
        # The offset of the lowest number from the first one, and the bytes from there to the end of the highest.
        self.low = sum(way for way in ways if way < 0) if total else 0
        self.span = sum(map(abs, ways)) + size if total else 0

    def at(self, pointer: int) -> bytes:
        """Return a copy of the numbers, given the address of the first one. The caller vouches for the address."""
        if not self.span:
            return b""
        if not pointer:
            msg = "the pointer to its data is null"
            raise NoFormError(msg)
        from ctypes import c_char

        memory = memoryview((c_char * self.span).from_address(pointer + self.low))
        return memory.tobytes() if self._dense else self._gathered(memory, -self.low)

    def within(self, memory: memoryview, offset: int) -> Data | None:
        """Return the numbers, given the offset of the first one in some bytes; None if they reach beyond the bytes."""
        start = offset + self.low
        if start < 0 or start + self.span > memory.nbytes:
            return None
        if self._dense:
            return memory[start : start + self.span]
        return self._gathered(memory, offset)

    def _gathered(self, memory: memoryview, first: int) -> bytes:
        """Copy the numbers along the longest axis together: the first byte of each, then the second, and so on."""
        ndarray: Any = numpy_array()
        if ndarray is not None:
            # numpy does the same faster.
            copy: bytes = ndarray(
                self._shape, f"V{self._size}", memory, first, self._strides
            ).tobytes()
            return copy
        result = bytearray(prod(self._shape) * self._size)
        longest = max(range(len(self._shape)), key=self._shape.__getitem__)
        count, there, here = (
            self._shape[longest],
            self._strides[longest],
            self._dense_strides[longest],
        )
        others = [(0,) if axis == longest else range(n) for axis, n in enumerate(self._shape)]
        for indexes in product(*others):
            source = first + sum(map(mul, indexes, self._strides))
            target = sum(map(mul, indexes, self._dense_strides))
            end = target + here * (count - 1) + 1
            for byte in range(self._size):
                result[target + byte : end + byte : here] = _every(
                    memory, source + byte, count, there
                )
        return bytes(result)


def _every(memory: memoryview, start: int, count: int, step: int) -> bytes:
    if step == 0:
        return memory[start : start + 1].tobytes() * count
    if step > 0:
        return memory[start : start + step * (count - 1) + 1 : step].tobytes()
    return memory[start + step * (count - 1) : start + 1 : -step].tobytes()[::-1]
