"""Load native kernels from their bytes. Nothing is written to disk where the system allows it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from hotstart._torch.running.native_code import allow_kernels
from hotstart.records.artifact import Kernel
from hotstart.runtime.code.libraries import path_in_memory


def load_kernel(kernel: Kernel) -> Callable[..., Any]:
    """The function in a shared object.

    A kernel is a Python extension module that Inductor compiled, `PyInit_kernel`, linked to no
    part of torch. It is loaded from an anonymous file in memory.

    Each different kernel is loaded once in a process. Where Python keeps modules is where it is
    found again, so that programs share the kernels they have in common.
    """
    # The part after the dot names the init function; the part before makes the name unique.
    name = f"hotstart_{kernel.name}.kernel"
    module = sys.modules.get(name)
    if module is None:
        allow_kernels()
        module = sys.modules[name] = _load(name, path_in_memory(kernel.data))
    function: Callable[..., Any] = module.kernel
    return function


def _load(name: str, path: str) -> Any:
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
