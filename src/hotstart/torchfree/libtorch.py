"""The C functions of libtorch_cpu, without Python's torch."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hotstart.errors import ArtifactError

_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2,
    "int8": 1, "uint8": 1, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8, "complex64": 8,
    "complex128": 16, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
}  # fmt: skip
"""Bytes of an element, of the dtypes that arrays have."""

_OF_TENSORS = ("data_ptr", "dim", "dtype", "sizes", "strides", "storage_offset")


class Described(NamedTuple):
    """A tensor of libtorch's.

    Attributes:
        address: of its first element.
        dtype: its name.
        shape: its sizes.
        strides: in elements.
        storage: the address that its memory begins at.
    """

    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    storage: int


class Libtorch:
    """libtorch_cpu, opened: tensors as handles, which are addresses.

    The functions are part of torch's C interface (2.11 to 2.15); each gives a status, and a failure
    is a `RuntimeError` here.

    Raises:
        ArtifactError: torch is not installed, or its library cannot be opened.
    """

    def __init__(self) -> None:
        self.library = _open()
        self._cpu: int = self.library.aoti_torch_device_type_cpu()
        self._opaque: int = self.library.aoti_torch_layout__mkldnn()
        self._strided: int = self.library.aoti_torch_layout_strided()
        self._codes = {name: self._code(name) for name in _SIZES}
        self._names = {code: name for name, code in self._codes.items()}
        create = self.library.aoti_torch_create_tensor_from_blob_v2
        create.argtypes = [
            ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
            ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32,
            ctypes.c_char_p, ctypes.c_int64,
        ]  # fmt: skip
        empty = self.library.aoti_torch_empty_strided
        empty.argtypes = [
            ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32,
            ctypes.c_int32, ctypes.c_void_p,
        ]  # fmt: skip
        self.library.aoti_torch_abi_version.restype = ctypes.c_uint64
        self.library.torch_new_list_reserve_size.argtypes = [ctypes.c_size_t, ctypes.c_void_p]
        self.library.aoti_torch_copy_.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32]
        self.library.aoti_torch_delete_tensor_object.argtypes = [ctypes.c_void_p]
        self._getters = [self._getter(name) for name in _OF_TENSORS]

    def _getter(self, name: str) -> Callable[..., int]:
        get = getattr(self.library, f"aoti_torch_get_{name}")
        get.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        function: Callable[..., int] = get
        return function

    def _code(self, dtype: str) -> int:
        code: int = getattr(self.library, f"aoti_torch_dtype_{dtype}")()
        return code

    def over(
        self,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        dtype: str,
        layout: bytes | None = None,
    ) -> int:
        """Make a tensor over memory that somebody keeps for as long.

        Args:
            address: of the first element.
            shape: its sizes.
            strides: its strides, in elements.
            dtype: its name.
            layout: how oneDNN has packed it; None for a plain tensor.

        Returns:
            A handle, which has to be deleted.
        """
        rank = len(shape)
        handle = ctypes.c_void_p()
        status = self.library.aoti_torch_create_tensor_from_blob_v2(
            *(address, rank, _row(shape), _row(strides or [0] * rank), 0, self._codes[dtype]),
            *(self._cpu, 0, ctypes.byref(handle)),
            *(self._strided if layout is None else self._opaque, layout, len(layout or b"")),
        )
        self._check(status)
        return handle.value or 0

    def laid_out(self, of: int, shape: Sequence[int], strides: Sequence[int], dtype: str) -> int:
        """Copy a tensor into another layout; a handle, which has to be deleted."""
        handle = ctypes.c_void_p()
        code = self._codes[dtype]
        self._check(
            self.library.aoti_torch_empty_strided(
                len(shape), _row(shape), _row(strides), code, self._cpu, 0, ctypes.byref(handle)
            )
        )
        self.copy(handle.value or 0, of)
        return handle.value or 0

    def copy(self, into: int, of: int) -> None:
        """Copy what a tensor holds into another of the same shape."""
        self._check(self.library.aoti_torch_copy_(into, of, 0))

    def resolved(self, handle: int) -> int:
        """Trade a handle for one of the same numbers as they are in memory.

        Operators such as `conj` leave it to readers to conjugate complex numbers.
        """
        code = ctypes.c_int32()
        self._check(self.library.aoti_torch_get_dtype(handle, ctypes.byref(code)))
        if not self._names.get(code.value, "").startswith("complex"):
            return handle
        row = (ctypes.c_uint64 * 1)(handle)
        version = ctypes.c_uint64(self.library.aoti_torch_abi_version())
        self._check(self.library.torch_call_dispatcher(b"aten::resolve_conj", b"", row, version))
        return row[0]

    def delete(self, handle: int) -> None:
        """Delete a handle."""
        self.library.aoti_torch_delete_tensor_object(handle)

    def described(self, handle: int) -> Described:
        """Describe a tensor."""
        address, dims, code = ctypes.c_void_p(), ctypes.c_int64(), ctypes.c_int32()
        offset = ctypes.c_int64()
        sizes, strides = ctypes.POINTER(ctypes.c_int64)(), ctypes.POINTER(ctypes.c_int64)()
        places = (address, dims, code, sizes, strides, offset)
        for get, place in zip(self._getters, places, strict=True):
            self._check(get(handle, ctypes.byref(place)))
        rank = dims.value
        if code.value not in self._names:
            raise RuntimeError(f"a result of a dtype that arrays have not: number {code.value}")
        dtype, begin = self._names[code.value], address.value or 0
        storage = begin - offset.value * size_of(dtype)
        return Described(begin, dtype, tuple(sizes[:rank]), tuple(strides[:rank]), storage)

    def sums_of_rows(self, address: int, rows: int, width: int) -> bytes:
        """Sum each row of 64-bit integers in memory; the sums, as bytes.

        `aten::sum.dim_IntList` by torch's dispatcher, whose arguments are numbers in a row: it owns
        the tensor, the list and the box of the list that are passed.
        """
        of = self.over(address, (rows, width), (width, 1), "int64")
        listed = ctypes.c_uint64()
        self._check(self.library.torch_new_list_reserve_size(1, ctypes.byref(listed)))
        self._check(self.library.torch_list_push_back(listed, ctypes.c_uint64(1)))
        row = (ctypes.c_uint64 * 4)(of, self._boxed(listed.value), 0, 0)
        version = ctypes.c_uint64(self.library.aoti_torch_abi_version())
        call = self.library.torch_call_dispatcher
        self._check(call(b"aten::sum", b"dim_IntList", row, version))
        try:
            found = self.described(row[0])
            return ctypes.string_at(found.address, 8 * found.shape[0])
        finally:
            self.delete(row[0])

    def _boxed(self, word: int) -> int:
        box = ctypes.POINTER(ctypes.c_uint64)()
        if hasattr(self.library, "torch_new_stable_ivalue"):  # 2.13
            self._check(self.library.torch_new_stable_ivalue(ctypes.byref(box)))
        else:
            new = ctypes.CDLL("libstdc++.so.6")._Znwm  # what its `delete` belongs to
            new.restype = ctypes.c_void_p
            box = ctypes.cast(new(ctypes.c_size_t(8)), ctypes.POINTER(ctypes.c_uint64))
        box[0] = word
        return ctypes.cast(box, ctypes.c_void_p).value or 0

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise RuntimeError("a function of libtorch_cpu failed; it has said why on stderr")


def size_of(dtype: str) -> int:
    """Return the bytes of an element."""
    return _SIZES[dtype]


def is_known(dtype: str) -> bool:
    """Tell whether arrays have a dtype."""
    return dtype in _SIZES


def _row(numbers: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)


@functools.cache
def libtorch() -> Libtorch:
    """Open libtorch_cpu, once in a process."""
    return Libtorch()


def _open() -> ctypes.CDLL:
    spec = importlib.util.find_spec("torch")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    for place in places:
        for file in sorted(Path(place, "lib").glob("libtorch_cpu.*")):
            try:
                return _opened(file)
            except OSError as error:
                raise ArtifactError(
                    f"{file}: expected torch's library for the CPU, found that it does not open: "
                    f"{error}. Install torch again."
                ) from error
    raise ArtifactError(
        "torch: expected the package, whose library runs the program, found none. Install it."
    )


def _opened(file: Path) -> ctypes.CDLL:
    """Open a library without the interpreter's lock, which Python keeps while it opens one."""
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
    handle = dlopen(os.fsencode(file), os.RTLD_LAZY | os.RTLD_LOCAL)
    return ctypes.CDLL(str(file), handle=handle)  # which says what is wrong without a handle


@functools.cache
def capsules() -> tuple[Callable[[int], Any], Callable[[Any], int]]:
    """Return what makes a capsule of a handle, and what takes the handle out of one.

    Native programs take and give handles in capsules without a name.
    """
    api = ctypes.pythonapi
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
        ("PyCapsule_New", api)
    )
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    return lambda handle: make(handle, None, None), lambda capsule: take(capsule, None)
