"""What a program without torch takes and gives: anything with a buffer, and arrays over memory."""

from __future__ import annotations

import array
import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hotstart.torchfree.library import Libtorch, size_of

# By the letter and the size in the array interface, and by the letter of the buffer protocol.
_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16",
    "i1": "int8", "u1": "uint8", "b1": "bool", "u2": "uint16", "u4": "uint32", "u8": "uint64",
    "c8": "complex64", "c16": "complex128",
}  # fmt: skip
_INTERFACE = {dtype: code for code, dtype in _DTYPES.items()}
_FORMATS = {
    "d": "f8", "f": "f4", "e": "f2", "q": "i8", "l": "i8", "i": "i4", "h": "i2", "b": "i1",
    "B": "u1", "?": "b1", "H": "u2", "I": "u4", "Q": "u8", "L": "u8",
}  # fmt: skip
_OF_DTYPE = {code: letter for letter, code in _FORMATS.items() if letter not in "lL"}
_FROM_DLPACK = {
    (2, 64): "float64", (2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16",
    (0, 64): "int64", (0, 32): "int32", (0, 16): "int16", (0, 8): "int8", (1, 8): "uint8",
    (6, 8): "bool", (1, 16): "uint16", (1, 32): "uint32", (1, 64): "uint64",
    (5, 64): "complex64", (5, 128): "complex128",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """An array that a call was given.

    Attributes:
        address: of its first element.
        dtype: its name.
        shape: its sizes.
        strides: in elements.
        keeps: what keeps its memory.
        writable: whether it may be written to.
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    keeps: Any
    writable: bool = True

    def __str__(self) -> str:
        return f"torch.{self.dtype} {list(self.shape)} on cpu"


def given(value: Any, dtype: str) -> Given | None:
    """Read an array; None for what is none.

    Lists and tuples of numbers become arrays of the dtype that is wanted.

    Args:
        value: has an array interface, DLPack or a buffer, or is a list of numbers.
        dtype: what is wanted.
    """
    if isinstance(value, Array):
        return value.given()
    if isinstance(value, list | tuple | int | float):
        return _of_list(value, dtype)
    if (interface := getattr(value, "__array_interface__", None)) is not None:
        return _of_interface(interface, value)
    if hasattr(value, "__dlpack__"):
        return _of_dlpack(value)
    try:
        view = memoryview(value)
    except TypeError:
        return None
    return _of_buffer(view)


def _of_interface(interface: dict[str, Any], value: Any) -> Given | None:
    order, code = interface["typestr"][0], interface["typestr"][1:]
    data = interface.get("data")
    if code not in _DTYPES or order == ">" or not isinstance(data, tuple):
        return None
    shape, size = tuple(interface["shape"]), size_of(_DTYPES[code])
    steps = interface.get("strides")
    if steps is not None and any(step % size for step in steps):
        return None
    strides = _dense(shape) if steps is None else tuple(step // size for step in steps)
    return _forward(Given(data[0], _DTYPES[code], shape, strides, value, not data[1]), value)


def _forward(found: Given, value: Any) -> Given | None:
    """Copy an array that goes backwards somewhere, which tensors cannot; None if that fails."""
    if 0 in found.shape:
        return replace(found, strides=_dense(found.shape))
    if all(step >= 0 for step in found.strides):
        return found
    try:
        memory = bytearray(memoryview(value).tobytes())
    except (TypeError, ValueError, BufferError):
        return None
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return Given(address, found.dtype, found.shape, _dense(found.shape), memory)


def _of_buffer(view: memoryview) -> Given | None:
    letter = view.format.lstrip("@=<")
    if letter not in _FORMATS or view.itemsize != size_of(_DTYPES[_FORMATS[letter]]):
        return None
    strides = tuple(step // view.itemsize for step in view.strides or ())
    kept = view
    if view.readonly or not view.c_contiguous:
        # ctypes finds addresses in memory that can be written to; this is a copy.
        kept = memoryview(bytearray(view.tobytes()))
        strides = _dense(view.shape or ())
        flat = kept
    else:
        flat = kept.cast("B") if view.nbytes else kept
    address = ctypes.addressof(ctypes.c_char.from_buffer(flat)) if view.nbytes else 0
    return Given(address, _DTYPES[_FORMATS[letter]], tuple(view.shape or ()), strides, kept)


def _of_list(value: Any, dtype: str) -> Given | None:
    shape, flat = _flattened(value)
    letter = _OF_DTYPE.get(_INTERFACE.get(dtype, ""))
    if shape is None or letter is None:
        return None
    kinds = {"?": (bool,), "d": (int, float), "f": (int, float)}.get(letter, (int,))
    if letter == "e" or not all(type(each) in kinds for each in flat):  # Python has no half
        return None
    try:
        memory = array.array("b" if letter == "?" else letter, flat)
    except OverflowError:  # a number that the dtype does not have
        return None
    address = memory.buffer_info()[0] if len(memory) else 0
    return Given(address, dtype, shape, _dense(shape), memory)


def _flattened(value: Any) -> tuple[tuple[int, ...] | None, list[Any]]:
    """The shape of nested lists, None if they have none, and the numbers in order."""
    if not isinstance(value, list | tuple):
        return (), [value]
    found = [_flattened(each) for each in value]
    shapes = {shape for shape, _ in found}
    if len(shapes) > 1 or None in shapes:
        return None, []
    inner = shapes.pop() if shapes else ()
    return (len(value), *(inner or ())), [each for _, flat in found for each in flat]


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("index", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    """DLPack's `DLTensor`."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device", _Device), ("dims", ctypes.c_int32), ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]  # fmt: skip


def _of_dlpack(value: Any) -> Given | None:
    capsule = value.__dlpack__()
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    tensor = _Tensor.from_address(take(capsule, b"dltensor"))
    dtype = _FROM_DLPACK.get((tensor.type.code, tensor.type.bits))
    if tensor.device.kind != 1 or dtype is None or tensor.type.lanes != 1:  # 1 is the CPU
        return None
    shape = tuple(tensor.shape[: tensor.dims])
    strides = tuple(tensor.strides[: tensor.dims]) if tensor.strides else _dense(shape)
    address = (tensor.data or 0) + tensor.offset
    return _forward(Given(address, dtype, shape, strides, (value, capsule)), value)


class Array:
    """A result: a tensor's memory, which it keeps.

    `numpy.asarray` and whatever else reads an array interface make an array of the same memory.

    Attributes:
        shape: its sizes.
        dtype: its name, such as `float32`.
        strides: in elements.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_handle",
        "_keeps",
        "_torch",
        "_writable",
        "dtype",
        "shape",
        "strides",
    )

    def __init__(
        self, torch: Libtorch, handle: int, keeps: tuple[Any, ...] = (), writable: bool = True
    ) -> None:
        self._writable = writable
        self._torch = torch
        self._keeps = keeps
        self._handle = handle
        self._address, self.dtype, self.shape, self.strides = torch.described(handle)

    def __del__(self) -> None:
        self._torch.delete(self._handle)

    def __copy__(self) -> Array:
        """Return the array: a second one would delete the tensor a second time."""
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("an Array is memory of this process: copy it, as by numpy.array(a)")

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The memory as numpy describes it."""
        if self.dtype not in _INTERFACE:
            raise AttributeError(f"numpy has no {self.dtype}")
        size = size_of(self.dtype)
        return {
            "version": 3,
            "typestr": ("|" if size == 1 else "<") + _INTERFACE[self.dtype],
            "shape": self.shape,
            "strides": tuple(stride * size for stride in self.strides),
            "data": (self._address, not self._writable),
        }

    def given(self) -> Given:
        """The array as an argument of another call."""
        return Given(self._address, self.dtype, self.shape, self.strides, self, self._writable)

    def tolist(self) -> Any:
        """Return the numbers in nested lists; one number where there are no dimensions."""
        letter = _OF_DTYPE.get(_INTERFACE.get(self.dtype, ""))
        if letter is None:
            raise TypeError(f"Python has no numbers of {self.dtype}")
        return _nested(self._address, size_of(self.dtype), letter, self.shape, self.strides)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({self.dtype}, {list(self.shape)})"


def _nested(
    address: int, size: int, letter: str, shape: Sequence[int], strides: Sequence[int]
) -> Any:
    if not shape:
        return struct.unpack(f"={letter}", ctypes.string_at(address, size))[0]
    if len(shape) == 1 and strides[0] == 1:
        data = ctypes.string_at(address, size * shape[0])
        return list(struct.unpack(f"={shape[0]}{letter}", data))
    return [
        _nested(address + place * strides[0] * size, size, letter, shape[1:], strides[1:])
        for place in range(shape[0])
    ]


def _dense(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
