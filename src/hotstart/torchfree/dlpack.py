"""DLPack, the protocol by which libraries hand each other arrays: read, and given."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

CPU = (1, 0)
"""The device of memory that the CPU reads."""

_DTYPES = {
    (2, 64): "float64", (2, 32): "float32", (2, 16): "float16", (4, 16): "bfloat16",
    (0, 64): "int64", (0, 32): "int32", (0, 16): "int16", (0, 8): "int8", (1, 8): "uint8",
    (6, 8): "bool", (1, 16): "uint16", (1, 32): "uint32", (1, 64): "uint64",
    (5, 64): "complex64", (5, 128): "complex128",
}  # fmt: skip
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_VERSION = (1, 1)
_NAME, _NAME_OF_VERSIONED = b"dltensor", b"dltensor_versioned"
_READ_ONLY = 1


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("index", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    """`DLTensor`."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device", _Device), ("dims", ctypes.c_int32), ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Managed(ctypes.Structure):
    """`DLManagedTensor`."""

    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("delete", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    """`DLManagedTensorVersioned`."""

    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("delete", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    ]  # fmt: skip


class Memory(NamedTuple):
    """An array that comes or goes by DLPack.

    Attributes:
        address: of its first element.
        dtype: its name.
        shape: its sizes.
        strides: in elements; None for rows that follow each other.
        writable: whether it may be written to.
        keeps: what keeps its memory.
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    writable: bool
    keeps: Any


# --- read -----------------------------------------------------------------------------------------


def read(value: Any) -> Memory | None:
    """Read an array of the CPU's that a value gives; None where it gives none."""
    try:
        try:
            capsule = value.__dlpack__(max_version=_VERSION)
        except TypeError:  # it knows no versions
            capsule = value.__dlpack__()
    except (BufferError, RuntimeError, TypeError, ValueError):  # such as memory of another device
        return None
    valid, take = _capsule_functions()
    writable = True
    if valid(capsule, _NAME_OF_VERSIONED):
        versioned = _Versioned.from_address(take(capsule, _NAME_OF_VERSIONED))
        if versioned.major != _VERSION[0]:
            return None
        writable, tensor = not versioned.flags & _READ_ONLY, versioned.tensor
    else:
        tensor = _Managed.from_address(take(capsule, _NAME)).tensor
    dtype = _DTYPES.get((tensor.type.code, tensor.type.bits))
    if tensor.device.kind != CPU[0] or dtype is None or tensor.type.lanes != 1:
        return None
    shape = tuple(tensor.shape[: tensor.dims])
    strides = tuple(tensor.strides[: tensor.dims]) if tensor.strides else None
    address = (tensor.data or 0) + tensor.offset
    return Memory(address, dtype, shape, strides, writable, (value, capsule))


def _capsule_functions() -> tuple[Callable[..., bool], Callable[..., int]]:
    api = ctypes.pythonapi
    valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    return valid(("PyCapsule_IsValid", api)), take(("PyCapsule_GetPointer", api))


# --- given ----------------------------------------------------------------------------------------


class _Given:
    """Tensor that a capsule points to, with its memory; whoever takes it deletes it."""

    def __init__(self, array: Memory, versioned: bool) -> None:
        self.array = array
        count = len(array.shape)
        strides = array.strides or ()
        self.rows = [(ctypes.c_int64 * count)(*row) for row in (array.shape, strides)]
        sizes, steps = (ctypes.cast(row, ctypes.POINTER(ctypes.c_int64)) for row in self.rows)
        code, bits = _CODES[array.dtype]
        tensor = _Tensor(array.address, CPU, count, (code, bits, 1), sizes, steps, 0)
        delete = ctypes.cast(_delete_versioned if versioned else _delete, ctypes.c_void_p)
        self.made = (
            _Versioned(*_VERSION, id(self), delete, 0 if array.writable else _READ_ONLY, tensor)
            if versioned
            else _Managed(tensor, id(self), delete)
        )


def exported(array: Memory, version: tuple[int, int] | None) -> Any:
    """Put an array into a capsule.

    Args:
        array: its memory is kept until the capsule, or who took it, is gone.
        version: the newest that who asks knows; None for the one before versions.

    Raises:
        BufferError: it is read-only, which that cannot say; or of a dtype that DLPack has not.
    """
    versioned = version is not None and version[0] >= _VERSION[0]
    if array.dtype not in _CODES:
        raise BufferError(f"DLPack has no {array.dtype} here")
    if not array.writable and not versioned:
        raise BufferError("the array is read-only, which this version of DLPack cannot say")
    given = _Given(array, versioned)
    name, forget = (_NAME_OF_VERSIONED, _forget_versioned) if versioned else (_NAME, _forget)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", ctypes.pythonapi)
    )
    capsule = make(ctypes.addressof(given.made), name, ctypes.cast(forget, ctypes.c_void_p))
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(given))
    return capsule


def _let_go(context: int) -> None:
    ctypes.pythonapi.Py_DecRef(ctypes.c_void_p(context))


def _deleted(managed: int) -> None:
    _let_go(_Managed.from_address(managed).context)


def _deleted_versioned(managed: int) -> None:
    _let_go(_Versioned.from_address(managed).context)


def _left(capsule: int, name: bytes) -> int | None:
    """The address of what a capsule holds that is about to go; None if somebody took it."""
    api = ctypes.pythonapi
    pointer = ctypes.c_void_p(capsule)
    if not api.PyCapsule_IsValid(pointer, name):
        return None
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    address: int = take(pointer, name)
    return address


def _gone(capsule: int) -> None:
    if (address := _left(capsule, _NAME)) is not None:
        _let_go(_Managed.from_address(address).context)


def _gone_versioned(capsule: int) -> None:
    if (address := _left(capsule, _NAME_OF_VERSIONED)) is not None:
        _let_go(_Versioned.from_address(address).context)


# As C calls them: without the interpreter's lock, and with it.
_delete, _delete_versioned = map(
    ctypes.CFUNCTYPE(None, ctypes.c_void_p), (_deleted, _deleted_versioned)
)
_forget, _forget_versioned = map(ctypes.PYFUNCTYPE(None, ctypes.c_void_p), (_gone, _gone_versioned))
