"""Numbers in memory, as a program without torch has them: arguments, results and weights."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec

from hotstart.records.shapes import spanned
from hotstart.runtime.shared_memory import Memory
from hotstart.torchfree import dlpack
from hotstart.torchfree.libtorch import Libtorch, size_of

CODES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "int64": "i8", "int32": "i4", "int16": "i2",
    "int8": "i1", "uint8": "u1", "bool": "b1", "uint16": "u2", "uint32": "u4", "uint64": "u8",
    "complex64": "c8", "complex128": "c16",
}  # fmt: skip
"""Letter and size of dtypes in the array interface."""

LETTERS = {
    "float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "int16": "h",
    "int8": "b", "uint8": "B", "bool": "?", "uint16": "H", "uint32": "I", "uint64": "Q",
}  # fmt: skip
"""Letters of dtypes in the buffer protocol."""


@dataclass(frozen=True)
class Handle:
    """A handle of a tensor of libtorch's, which is deleted with it."""

    torch: Libtorch
    number: int

    def __del__(self) -> None:
        self.torch.delete(self.number)


class Array(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """Numbers in memory.

    `numpy.asarray` and whatever else reads an array interface, and whatever takes DLPack, such as
    `torch.from_dlpack`, make an array of the same memory. Views have the names that torch and numpy
    have for them.

    Attributes:
        address: of its first element.
        dtype: its name, such as `float32`.
        shape: its sizes.
        strides: in elements.
        keeps: whatever keeps its memory.
        writable: whether it may be written to.
        copied: whether it is a copy of what a caller passed.
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    keeps: Any = None
    writable: bool = True
    copied: bool = False

    def __repr__(self) -> str:
        return f"Array({self.dtype}, {list(self.shape)})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("an Array is memory of this process: copy it, as by numpy.array(a)")

    # --- for others -------------------------------------------------------------------------------

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The memory as numpy describes it."""
        if self.dtype not in CODES:
            raise AttributeError(f"numpy has no {self.dtype}")
        size = size_of(self.dtype)
        return {
            "version": 3,
            "typestr": ("|" if size == 1 else "<") + CODES[self.dtype],
            "shape": self.shape,
            "strides": tuple(stride * size for stride in self.strides),
            "data": (self.address, not self.writable),
        }

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Make numpy's array of a dtype that only the package ml_dtypes brings, such as bfloat16.

        Raises:
            TypeError: that is not installed.
        """
        numpy = importlib.import_module("numpy")
        if self.dtype in CODES:
            made = numpy.asarray(self)
        elif importlib.util.find_spec("ml_dtypes") is not None:
            kind = getattr(importlib.import_module("ml_dtypes"), self.dtype)
            made = numpy.asarray(self.bits()).view(kind)
        else:
            raise TypeError(
                f"expected an array of a dtype that numpy has, found {self.dtype}. Install "
                "ml_dtypes, which brings it; take the bits, as by numpy.asarray(a.bits()); or pass "
                "it on by DLPack, as by torch.from_dlpack(a)."
            )
        made = made if dtype is None else made.astype(dtype, copy=False)
        return made.copy() if copy else made

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Give the memory by DLPack.

        Raises:
            BufferError: it cannot be written to, and who asks cannot be told so; a copy, or memory
                of another device, is asked for.
        """
        if copy or dl_device not in (None, dlpack.CPU):
            raise BufferError("an Array gives its own memory, which is the CPU's, and no copy")
        memory = (self.address, self.dtype, self.shape, self.strides, self.writable, self)
        return dlpack.exported(dlpack.Memory(*memory), max_version)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU

    def __buffer__(self, flags: int, /) -> memoryview:
        """Give the memory as a buffer, from Python 3.12 on.

        Raises:
            BufferError: it has gaps, or a dtype that buffers do not have.
        """
        if self.dtype not in LETTERS or not self.is_contiguous():
            raise BufferError(f"no buffer shows {self!r} with strides {self.strides}")
        size = prod(self.shape) * size_of(self.dtype)
        memory = (ctypes.c_char * size).from_address(self.address) if size else bytearray()
        flat = memoryview(memory).cast("B")  # Python keeps the array for as long
        letter: Any = LETTERS[self.dtype]
        view = flat.cast(letter, self.shape) if size else flat
        return view if self.writable else view.toreadonly()

    def tolist(self) -> Any:
        """Return the numbers in nested lists; one number where there are no dimensions."""
        if self.dtype == "bfloat16":
            return _widened(self.bits().tolist())
        if self.dtype not in LETTERS:
            raise TypeError(f"Python has no numbers of {self.dtype}")
        letter = LETTERS[self.dtype]
        return _nested(self.address, size_of(self.dtype), letter, self.shape, self.strides)

    def bits(self) -> Array:
        """Return the same memory as unsigned integers of the same size."""
        dtype = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}.get(size_of(self.dtype))
        if dtype is None:
            raise TypeError(f"there are no integers of the size of {self.dtype}")
        return msgspec.structs.replace(self, dtype=dtype)

    # --- views, as generated code takes them ------------------------------------------------------

    def detach(self) -> Array:
        """Return the array: nothing is differentiated."""
        return self

    @property
    def data(self) -> Array:
        """The array: nothing is differentiated."""
        return self

    def stride(self) -> tuple[int, ...]:
        """Return the strides."""
        return self.strides

    def storage_offset(self) -> int:
        """Return where the array begins in itself: places are counted from its first element."""
        return 0

    def as_strided(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> Array:
        """Return a view of other sizes and strides, which begins some elements further."""
        address = self.address + offset * size_of(self.dtype)
        return msgspec.structs.replace(
            self, address=address, shape=tuple(shape), strides=tuple(strides)
        )

    @property
    def T(self) -> Array:  # noqa: N802
        """The array with its dimensions reversed."""
        return self.as_strided(self.shape[::-1], self.strides[::-1])

    @property
    def mT(self) -> Array:  # noqa: N802
        """The array with its last two dimensions exchanged.

        Raises:
            TypeError: it has fewer.
        """
        if len(self.shape) < 2:
            raise TypeError(f"mT: expected at least two dimensions, found {len(self.shape)}")
        (*shape, rows, columns), (*strides, down, right) = self.shape, self.strides
        return self.as_strided((*shape, columns, rows), (*strides, right, down))

    def numpy(self) -> Any:
        """Return numpy's array of the same memory."""
        return importlib.import_module("numpy").asarray(self)

    # --- memory -----------------------------------------------------------------------------------

    def is_contiguous(self) -> bool:
        """Tell whether rows follow each other without gaps."""
        return 0 in self.shape or all(
            size == 1 or step == dense
            for size, step, dense in zip(self.shape, self.strides, rows_of(self.shape), strict=True)
        )

    def span(self) -> tuple[int, int]:
        """Return the address of the first byte, and that after the last."""
        size = spanned(self.shape, self.strides) * size_of(self.dtype)
        return self.address, self.address + size


class ArrayMemory(Memory):
    """Finds the places of arrays."""

    @staticmethod
    def holds(array: Any) -> bool:
        """Tell whether a value is an array that has elements."""
        return isinstance(array, Array) and 0 not in array.shape

    span = around = staticmethod(Array.span)


def described(array: Array) -> str:
    """Describe an array as errors do a tensor, such as `torch.float32 [2, 3] on cpu`."""
    return f"torch.{array.dtype} {list(array.shape)} on cpu"


def rows_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Compute the strides of rows that follow each other without gaps."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


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


def _widened(bits: Any) -> Any:
    """The numbers of bfloat16 whose bits are given, in nested lists: the upper half of a float."""
    if isinstance(bits, list):
        return [_widened(each) for each in bits]
    return struct.unpack("=f", struct.pack("=I", bits << 16))[0]
