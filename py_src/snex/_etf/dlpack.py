"""Arrays by `__dlpack__`, the common protocol of tensor libraries: https://dmlc.github.io/dlpack/latest.

The structures are those of DLPack's header, read through `ctypes`. The numbers are copied while the capsule exists;
it gives the memory back to the owner when it is freed.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from .arrays import MOST_AXES, Type, type_named
from .foreign import Layout, raised
from .scalars import NoFormError

if TYPE_CHECKING:
    from .arrays import Data, Shape

# Devices whose memory the CPU can read: the CPU itself, and memory that a GPU of either maker (CUDA, ROCm) reads, too.
_HERE = frozenset({1, 3, 11})
_DEVICES = {2: "CUDA", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 10: "ROCm", 13: "CUDA", 14: "oneAPI"}
_MAJOR = 1

# numpy's kinds of numbers, by DLPack's type codes.
_CODES = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}
_WHOLE = {(4, 16): "bfloat16", (10, 8): "float8_e4m3fn", (12, 8): "float8_e5m2"}


_POINTER_OF: Any = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


def read(value: Any) -> tuple[Type, Shape, Data]:  # noqa: ANN401 - of any type
    """Return the type, the shape and a copy of the numbers of an array.

    Raises:
        NoFormError: if it is on another device, or anything about it is wrong.
    """
    try:
        device, number = value.__dlpack_device__()
        device = int(device)
    except Exception as error:  # noqa: BLE001 - code of anybody's
        raise raised("__dlpack_device__", error) from None
    _check_device(device, number)
    try:
        capsule = _capsule(value)
    except Exception as error:  # noqa: BLE001 - code of anybody's
        raise raised("__dlpack__", error) from None
    tensor = _tensor(capsule)
    _check_device(tensor.device, tensor.device_id)
    type_ = _type_of(tensor)
    shape = _lengths(tensor)
    strides = None
    if shape and tensor.strides:
        strides = tuple(stride * type_.size for stride in tensor.strides[: len(shape)])
    pointer = tensor.data + tensor.byte_offset if tensor.data else 0
    return type_, shape, Layout(type_.size, shape, strides).at(pointer)


def _lengths(tensor: _Tensor) -> Shape:
    axes = tensor.ndim
    if not 0 <= axes <= MOST_AXES or (axes and not tensor.shape):
        without = "" if tensor.shape else " without lengths"
        msg = f"its __dlpack__ is wrong: expected a shape of 0 to {MOST_AXES} axes, got {axes}{without}"
        raise NoFormError(msg)
    shape = tuple(tensor.shape[:axes]) if axes else ()
    if any(length < 0 for length in shape):
        msg = f"its __dlpack__ is wrong: expected a shape without negative lengths, got {shape}"
        raise NoFormError(msg)
    return shape


def _check_device(device: int, number: object) -> None:
    if device not in _HERE:
        name = _DEVICES.get(device, f"device of type {device}")
        msg = f"it is on a {name} device (number {number}); move it to the CPU first, for instance with .cpu() in PyTorch"
        raise NoFormError(msg)


def _capsule(value: Any) -> object:  # noqa: ANN401 - of any type
    try:
        # Without a version, numpy refuses to export read-only arrays.
        return value.__dlpack__(max_version=(_MAJOR, 0))
    except TypeError:
        return value.__dlpack__()


def _tensor(capsule: object) -> _Tensor:
    try:
        pointer_of = _POINTER_OF(("PyCapsule_GetPointer", ctypes.pythonapi))
    except AttributeError:
        msg = "this Python cannot read it: convert it, for instance with numpy.from_dlpack()"
        raise NoFormError(msg) from None
    for name, kind in ((b"dltensor_versioned", _Versioned), (b"dltensor", _Tensor)):
        try:
            pointer = pointer_of(capsule, name)
        except ValueError:
            # It is a capsule of another name, or no capsule.
            continue
        found: Any = kind.from_address(pointer)
        if kind is _Tensor:
            return found  # type: ignore[no-any-return]
        if found.major != _MAJOR:
            msg = f"its __dlpack__ has version {found.major}.{found.minor}, but Snex supports {_MAJOR}"
            raise NoFormError(msg)
        return found.tensor  # type: ignore[no-any-return]
    msg = "its __dlpack__ is wrong: it did not return a DLPack capsule, or returned one that has been used"
    raise NoFormError(msg)


def _type_of(tensor: _Tensor) -> Type:
    code, bits = tensor.code, tensor.bits
    name = _WHOLE.get((code, bits)) or f"{_CODES.get(code, '?')}{bits // 8}"
    type_ = type_named(name) if tensor.lanes == 1 and bits % 8 == 0 else None
    if type_ is None:
        msg = f"Elixir has no arrays of its type (code {code}, {bits} bits, {tensor.lanes} lanes); convert it to another"
        raise NoFormError(msg)
    return type_
