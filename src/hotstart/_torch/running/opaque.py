"""Take a weight that is packed for oneDNN apart into memory and layout, and make it of these.

Such a tensor is opaque: it has no strides, and Python can neither read nor write it. AOTInductor
keeps constants of this kind in the same two parts.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from hotstart._torch.running.native_code import libtorch_cpu
from hotstart.dtypes import name_of


def is_opaque(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is packed for oneDNN."""
    return tensor.is_mkldnn


def layout_of(tensor: torch.Tensor) -> bytes:
    """Describe how a packed tensor lies in memory, as oneDNN of this version does.

    `_get_mkldnn_serialized_md` (2.11 to 2.15).
    """
    described: list[int] = torch.ops.mkldnn._get_mkldnn_serialized_md(tensor).tolist()
    return bytes(described)


def memory_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the address of a packed tensor's memory, and its size in bytes.

    `data_ptr` and `_nbytes` of `mkldnn` (2.11 to 2.15).
    """
    return torch.ops.mkldnn.data_ptr(tensor), torch.ops.mkldnn._nbytes(tensor)


def opaque_over(
    memory: torch.Tensor, shape: Sequence[int], dtype: torch.dtype, layout: bytes
) -> torch.Tensor:
    """Make a packed tensor of memory that holds one; nothing is copied.

    Args:
        memory: its bytes, uint8; kept as long as the tensor that is returned.
        shape: of the weight that was packed.
        dtype: its dtype.
        layout: as `layout_of`; oneDNN believes it.

    Raises:
        RuntimeError: this torch makes no such tensor, or the layout needs more memory.
    """
    made = _maker()(memory.data_ptr(), tuple(shape), name_of(dtype), layout)
    if (size := torch.ops.mkldnn._nbytes(made)) != memory.numel():
        raise RuntimeError(f"a layout of {size} bytes for {memory.numel()}")
    made.memory = memory  # type: ignore[attr-defined]
    return made


@functools.cache
def _maker() -> Callable[[int, tuple[int, ...], str, bytes], torch.Tensor]:
    """Bind the C function that makes a tensor of memory and an opaque layout.

    `aoti_torch_create_tensor_from_blob_v2` and the numbers of dtypes, devices and layouts are
    functions of libtorch_cpu's C interface (2.11 to 2.15), and
    `alloc_tensors_by_stealing_from_void_ptrs` makes Python objects of what they give; its sibling
    for one tensor (2.13) leaks it.

    Raises:
        RuntimeError: this torch does not have them.
    """
    try:
        library = libtorch_cpu()
        create = library.aoti_torch_create_tensor_from_blob_v2
        device = library.aoti_torch_device_type_cpu()
        opaque = library.aoti_torch_layout__mkldnn()
        steal = torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs
    except (AttributeError, OSError) as error:
        raise RuntimeError(f"torch {torch.__version__} makes no packed tensors: {error}") from error
    prototype = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    )
    capsule = prototype(("PyCapsule_New", ctypes.pythonapi))
    create.argtypes = [
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
        ctypes.c_int32, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32,
        ctypes.c_char_p, ctypes.c_int64,
    ]  # fmt: skip

    @functools.cache
    def number_of(dtype: str) -> int:
        number: int = getattr(library, f"aoti_torch_dtype_{dtype}")()
        return number

    @functools.cache
    def sizes_of(shape: tuple[int, ...]) -> tuple[int, Any, Any]:
        rank = len(shape)
        return rank, (ctypes.c_int64 * rank)(*shape), (ctypes.c_int64 * rank)()

    def make(address: int, shape: tuple[int, ...], dtype: str, layout: bytes) -> torch.Tensor:
        rank, sizes, strides = sizes_of(shape)
        number = number_of(dtype)
        handle = ctypes.c_void_p()
        failed = create(
            address, rank, sizes, strides, 0, number, device, 0, ctypes.byref(handle), opaque,
            layout, len(layout),
        )  # fmt: skip
        if failed:
            raise RuntimeError("oneDNN takes no such layout")
        (made,) = steal([capsule(handle, None, None)])
        return made

    return make
