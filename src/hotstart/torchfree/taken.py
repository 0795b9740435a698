"""Read arrays that a call is given: what has a buffer or speaks DLPack, and lists of numbers."""

from __future__ import annotations

import array
import ctypes
from typing import Any

from msgspec.structs import replace

from hotstart.torchfree import dlpack
from hotstart.torchfree.arrays import CODES, LETTERS, Array, rows_of
from hotstart.torchfree.libtorch import size_of

_DTYPES = {code: dtype for dtype, code in CODES.items()}
_OF_FORMAT = {
    **{letter: dtype for dtype, letter in LETTERS.items()},
    "l": "int64", "L": "uint64", "Zf": "complex64", "Zd": "complex128",
}  # fmt: skip
_OF_OTHERS = frozenset(
    ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
)
"""Dtypes that numpy has from ml_dtypes, under the same names."""

_LISTED = {
    "float64": "d", "float32": "f", "int64": "q", "int32": "i", "int16": "h", "int8": "b",
    "uint8": "B", "bool": "b", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip


def read(value: Any, dtype: str) -> Array | None:
    """Read an array; None for what is none.

    Lists and tuples of numbers, and numbers, become arrays of the dtype that is wanted.

    Args:
        value: has an array interface, DLPack or a buffer, or is a list of numbers.
        dtype: what is wanted.
    """
    if isinstance(value, Array):
        return value
    if isinstance(value, list | tuple | int | float) and not hasattr(value, "__array_interface__"):
        return _of_list(value, dtype)
    return read_memory(value)


def read_memory(value: Any) -> Array | None:
    """Read an array that is memory already; None for what is none."""
    if isinstance(value, Array):
        return value
    if (interface := getattr(value, "__array_interface__", None)) is not None:
        return _of_interface(interface, value)
    if hasattr(value, "__dlpack__"):
        return _of_dlpack(value)
    try:
        view = memoryview(value)
    except (TypeError, BufferError):
        return None
    return _of_buffer(view)


def _of_interface(interface: Any, value: Any) -> Array | None:
    if not isinstance(interface, dict):  # a class, say, whose instances have one
        return None
    order, code = interface["typestr"][0], interface["typestr"][1:]
    dtype = _DTYPES.get(code, str(getattr(value, "dtype", "")))
    data = interface.get("data")
    if (code not in _DTYPES and dtype not in _OF_OTHERS) or order == ">":
        return None
    if not isinstance(data, tuple):
        return None
    shape, size = tuple(interface["shape"]), size_of(dtype)
    steps = interface.get("strides")
    if steps is not None and any(step % size for step in steps):
        return None
    strides = rows_of(shape) if steps is None else tuple(step // size for step in steps)
    return _forward(Array(data[0], dtype, shape, strides, value, not data[1]), value)


def _forward(found: Array, value: Any) -> Array | None:
    """Copy an array that goes backwards somewhere, which tensors cannot; None if that fails."""
    if 0 in found.shape:
        return replace(found, strides=rows_of(found.shape))
    if all(step >= 0 for step in found.strides):
        return found
    try:
        memory = bytearray(memoryview(value).tobytes())
    except (TypeError, ValueError, BufferError):
        return None
    return _copied(memory, found.dtype, found.shape)


def _copied(memory: bytearray, dtype: str, shape: tuple[int, ...]) -> Array:
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) if memory else 0
    return Array(address, dtype, shape, rows_of(shape), memory, copied=True)


def _of_buffer(view: memoryview) -> Array | None:
    dtype = _OF_FORMAT.get(view.format.lstrip("@=<"), "")
    if not dtype or view.itemsize != size_of(dtype):
        return None
    shape = tuple(view.shape or ())
    if view.readonly or not view.c_contiguous:
        # ctypes finds addresses in memory that can be written to.
        return _copied(bytearray(view.tobytes()), dtype, shape)
    flat = view.cast("B") if view.nbytes else view
    address = ctypes.addressof(ctypes.c_char.from_buffer(flat)) if view.nbytes else 0
    return Array(address, dtype, shape, rows_of(shape), view)


def _of_dlpack(value: Any) -> Array | None:
    if getattr(value, "requires_grad", False):  # a tensor of torch's, which is imported by now
        value = value.detach()
    found = dlpack.read(value)
    if found is None:
        return None
    address, dtype, shape, strides, writable, keeps = found
    made = Array(address, dtype, shape, strides or rows_of(shape), keeps, writable)
    return _forward(made, value)


# --- lists ----------------------------------------------------------------------------------------


def _of_list(value: Any, dtype: str) -> Array | None:
    shape, flat = _flattened(value)
    letter = _LISTED.get(dtype)
    if shape is None or letter is None:
        return None
    kinds = {"bool": (bool,), "float64": (int, float), "float32": (int, float)}.get(dtype, (int,))
    if not all(type(each) in kinds for each in flat):
        return None
    try:
        memory = array.array(letter, flat)
    except OverflowError:  # a number that the dtype does not have
        return None
    address = memory.buffer_info()[0] if len(memory) else 0
    return Array(address, dtype, shape, rows_of(shape), memory, copied=True)


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
