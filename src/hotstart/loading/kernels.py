"""Load native kernels from their bytes. Nothing is written to disk where the system allows it."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import tempfile
from collections.abc import Callable
from typing import Any

from hotstart import _torch


class KernelLoader:
    """Loads each different kernel once.

    A kernel is a Python extension module that Inductor compiled, `PyInit_kernel`, linked to no
    part of torch. It is loaded from an anonymous file in memory. The dynamic linker and CPython
    both know a library by its path, and the path of such a file holds the number of its
    descriptor: descriptors stay open as long as the process lives, since a number that came back
    for another kernel would silently serve the first.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Callable[..., Any]] = {}

    def load(self, blob: bytes) -> Callable[..., Any]:
        """The kernel function in a shared object."""
        digest = hashlib.sha256(blob).hexdigest()
        if digest not in self._loaded:
            _torch.allow_kernels()
            self._loaded[digest] = _load(blob, digest)
        return self._loaded[digest]


def _load(blob: bytes, digest: str) -> Callable[..., Any]:
    path = _path_in_memory(blob) or _path_on_disk(blob)
    # The part after the dot names the init function; the part before makes the name unique.
    name = f"hotstart_{digest[:16]}.kernel"
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    kernel: Callable[..., Any] = module.kernel
    return kernel


def _path_in_memory(blob: bytes) -> str | None:
    if not hasattr(os, "memfd_create"):
        return None
    descriptor = os.memfd_create("hotstart", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(blob)
    return f"/proc/self/fd/{descriptor}"


def _path_on_disk(blob: bytes) -> str:
    # The file must outlive this function, as the system may read it again when pages are dropped.
    with tempfile.NamedTemporaryFile(prefix="hotstart-", suffix=".so", delete=False) as file:
        file.write(blob)
    return file.name
