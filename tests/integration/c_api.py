"""`hotstart.h` by ctypes: what a program in C does, in the words of Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64,
    torch.complex64, torch.complex128,
)  # fmt: skip
OK, ERROR, CONTRACT, CORRUPT, INCOMPATIBLE, FAILED = 0, 1, 2, 3, 4, 6

_Numbers = ctypes.POINTER(ctypes.c_int64)


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("dtype", ctypes.c_int), ("rank", ctypes.c_int32),
        ("shape", _Numbers), ("strides", _Numbers),
    ]  # fmt: skip


class _Axis(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("min", ctypes.c_int64), ("max", ctypes.c_int64),
        ("served", ctypes.c_char_p),
    ]  # fmt: skip


class _Argument(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("dtype", ctypes.c_int), ("rank", ctypes.c_int32),
        ("shape", _Numbers), ("axes", ctypes.POINTER(ctypes.c_int32)), ("written", ctypes.c_int32),
    ]  # fmt: skip


class _Info(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("argument_count", ctypes.c_int32), ("arguments", ctypes.POINTER(_Argument)),
        ("axis_count", ctypes.c_int32), ("axes", ctypes.POINTER(_Axis)),
        ("result_count", ctypes.c_int32), ("results", ctypes.POINTER(ctypes.c_char_p)),
    ]  # fmt: skip


class _Results(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int32), ("tensors", ctypes.POINTER(_Tensor))]


class Refused(Exception):
    """A function failed: its status and what `hotstart_last_error` says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Library:
    """`libhotstart.so`."""

    def __init__(self, file: Path) -> None:
        self._library = ctypes.CDLL(str(file))
        self._library.hotstart_last_error.restype = ctypes.c_char_p
        self._library.hotstart_target.restype = ctypes.c_char_p
        self._library.hotstart_describe.restype = ctypes.POINTER(_Info)
        self._library.hotstart_describe.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        self._library.hotstart_call.argtypes = [
            ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(_Tensor), ctypes.c_int32,
            ctypes.c_void_p,
        ]  # fmt: skip
        for name in ("close", "free", "call_count", "target"):
            getattr(self._library, f"hotstart_{name}").argtypes = [ctypes.c_void_p]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"hotstart_{name}")

    def checked(self, status: int) -> None:
        if status:
            raise Refused(status, self.last_error().decode())


class Program:
    """An open program, called with tensors; results are copied out, or kept."""

    def __init__(self, library: Library, file: Path, weights: Path) -> None:
        self._library = library
        handle = ctypes.c_void_p()
        given = str(file).encode(), str(weights).encode()
        library.checked(library.open(*given, ctypes.byref(handle)))
        self._handle = handle

    def close(self) -> None:
        self._library.close(self._handle)

    def describe(self, call: int = 0) -> dict[str, Any]:
        info = self._library.describe(self._handle, call)[0]
        axes = [info.axes[n] for n in range(info.axis_count)]
        arguments = [info.arguments[n] for n in range(info.argument_count)]
        return {
            "name": info.name.decode(),
            "arguments": [
                (
                    one.name.decode(),
                    DTYPES[one.dtype],
                    [
                        one.shape[d] if one.axes[d] < 0 else axes[one.axes[d]].name.decode()
                        for d in range(one.rank)
                    ],
                )
                for one in arguments
            ],
            "written": [bool(one.written) for one in arguments],
            "axes": [(a.name.decode(), a.min, a.max, a.served.decode()) for a in axes],
            "results": [info.results[n].decode() for n in range(info.result_count)],
        }

    def calls(self) -> int:
        found: int = self._library.call_count(self._handle)
        return found

    def target(self) -> str:
        found: bytes = self._library.target(self._handle)
        return found.decode()

    def __call__(self, *tensors: Tensor, call: int = 0) -> list[Tensor]:
        results = self.kept(*tensors, call=call)
        try:
            return read(results)
        finally:
            self._library.free(results)

    def kept(self, *tensors: Tensor, call: int = 0, dense: bool = False) -> Any:
        """Results that the caller frees. `dense` leaves strides out."""
        rows = [_row(tensor.shape) for tensor in tensors]
        strides = [None if dense else _row(tensor.stride()) for tensor in tensors]
        given = [
            _Tensor(t.data_ptr(), DTYPES.index(t.dtype), t.dim(), row, step)
            for t, row, step in zip(tensors, rows, strides, strict=True)
        ]
        results = ctypes.POINTER(_Results)()
        array = (_Tensor * max(len(given), 1))(*given)
        status = self._library.call(
            self._handle,
            call,
            array,
            len(given),
            ctypes.cast(ctypes.byref(results), ctypes.c_void_p),
        )
        self._library.checked(status)
        return results


def read(results: Any) -> list[Tensor]:
    """Copies of results."""
    return [_copied(results[0].tensors[n]) for n in range(results[0].count)]


def _copied(tensor: _Tensor) -> Tensor:
    shape, strides = tensor.shape[: tensor.rank], tensor.strides[: tensor.rank]
    dtype = DTYPES[tensor.dtype]
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    span = 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    memory = bytearray(ctypes.string_at(tensor.data, span * dtype.itemsize))
    return torch.frombuffer(memory, dtype=dtype).as_strided(shape, strides).clone()


def _row(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


class At:
    """Passes for a tensor at another address, or with other strides."""

    def __init__(self, address: int, like: Tensor, strides: tuple[int, ...] = ()) -> None:
        self.dtype, self.shape = like.dtype, like.shape
        self._address, self._strides = address, strides or like.stride()

    def data_ptr(self) -> int:
        return self._address

    def stride(self) -> tuple[int, ...]:
        return self._strides

    def dim(self) -> int:
        return len(self.shape)


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(one.dtype == other.dtype and one.equal(other) for one, other in pairs)
