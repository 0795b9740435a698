"""Pass tensors to native code, and kernels what they ask torch for."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


@functools.cache
def libtorch_cpu() -> ctypes.CDLL:
    """Open the library with the C and C++ functions of operators, which the process has already.

    Raises:
        OSError: there is none where torch keeps its libraries.
    """
    files = sorted(Path(torch.__file__).with_name("lib").glob("*torch_cpu.*"))
    return ctypes.CDLL(str(files[0] if files else "libtorch_cpu.so"))


def allow_kernels() -> None:
    """Tell kernels where the function is that gets the address of a tensor's data.

    They read it from the environment when they are loaded, so that they need not link torch.
    """
    guards: Any = torch._C._dynamo.guards
    address = guards._torchinductor_pyobject_tensor_data_ptr
    os.environ["_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR"] = str(address)


def reinterpret_tensor() -> Callable[..., torch.Tensor]:
    """The function that Inductor's code makes views with; `as_strided` knows no further offset.

    Private; torch 2.11 to 2.15.
    """
    guards: Any = torch._C._dynamo.guards
    made: Callable[..., torch.Tensor] = guards._reinterpret_tensor
    return made


def tensor_handles() -> Callable[[list[torch.Tensor]], list[Any]]:
    """A function that gives new handles of tensors, which whoever takes them has to delete.

    Private: it is how Inductor's own generated C++ gets tensors from Python. torch 2.11 to 2.15.
    """
    return torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors


def tensors_of_handles() -> Callable[[list[Any]], list[torch.Tensor]]:
    """A function that gives the tensors of handles, which are deleted; see `tensor_handles`."""
    return torch._C._aoti.alloc_tensors_by_stealing_from_void_ptrs
