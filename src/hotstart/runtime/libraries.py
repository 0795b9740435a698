"""Native code from bytes: shared objects, loaded from memory, once in a process each.

Nothing is written to disk. The dynamic linker knows a library by its path, and the path of such a
file holds the number of its descriptor: descriptors stay open as long as the process lives, since a
number that came back for another library would silently serve the first. Nothing here imports
torch.
"""

from __future__ import annotations

import ctypes
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from hotstart.records.artifact import Kernel


def path_in_memory(blob: bytes | memoryview) -> str:
    """Put bytes into an anonymous file, which stays; its path."""
    descriptor = os.memfd_create("hotstart", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(blob)
    return f"/proc/self/fd/{descriptor}"


def kernel_address(kernel: Kernel) -> int:
    """The address of a kernel's C function, which stays where it is."""
    module = _once(kernel, "function", _opened_kernel)
    address: int = module.address
    return address


def load_program(program: Kernel) -> list[Callable[..., Any]]:
    """The functions of a native program: `open`, `bind` and `call`."""
    module = _once(program, "program", _opened_program)
    functions: list[Callable[..., Any]] = module.functions
    return functions


def _opened_kernel(path: str, module: Any) -> None:
    module.library = ctypes.CDLL(path)
    module.address = ctypes.cast(module.library.kernel, ctypes.c_void_p).value


def _opened_program(path: str, module: Any) -> None:
    library = ctypes.PyDLL(path)
    library.hotstart_functions.restype = ctypes.py_object
    module.functions = library.hotstart_functions()


def _once(blob: Kernel, kind: str, opened: Callable[[str, Any], None]) -> Any:
    """Open a library that no program has opened; where Python keeps modules it is found again."""
    name = f"hotstart_{blob.name}.{kind}"
    module = sys.modules.get(name)
    if module is None:
        module = types.ModuleType(name)
        opened(path_in_memory(blob.data), module)
        sys.modules[name] = module
    return module
