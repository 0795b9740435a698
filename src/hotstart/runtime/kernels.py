"""Load native kernels from their bytes. Nothing is written to disk where the system allows it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

from hotstart import _torch
from hotstart.records.artifact import Kernel


def load_kernel(kernel: Kernel) -> Callable[..., Any]:
    """The function in a shared object.

    A kernel is a Python extension module that Inductor compiled, `PyInit_kernel`, linked to no
    part of torch. It is loaded from an anonymous file in memory. The dynamic linker and CPython
    both know a library by its path, and the path of such a file holds the number of its
    descriptor: descriptors stay open as long as the process lives, since a number that came back
    for another kernel would silently serve the first.

    Each different kernel is loaded once in a process. Where Python keeps modules is where it is
    found again, so that programs share the kernels they have in common.
    """
    # The part after the dot names the init function; the part before makes the name unique.
    name = f"hotstart_{kernel.name}.kernel"
    module = sys.modules.get(name)
    if module is None:
        _torch.allow_kernels()
        path = _path_in_memory(kernel.data)
        module = sys.modules[name] = _load(name, path)
    function: Callable[..., Any] = module.kernel
    return function


def _load(name: str, path: str) -> Any:
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _path_in_memory(blob: bytes | memoryview) -> str:
    descriptor = os.memfd_create("hotstart", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(blob)
    return f"/proc/self/fd/{descriptor}"
