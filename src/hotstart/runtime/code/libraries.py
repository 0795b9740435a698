"""Native code from bytes: shared objects, loaded from memory, once in a process each.

Nothing is written to disk. The dynamic linker knows a library by its path, and the path of such a
file holds the number of its descriptor: a number that came back for another library would silently
serve the first. So descriptors stay open as long as the process lives, and numbers of libraries are
passed over where somebody has closed all descriptors, as services do that go to the background.
Nothing here imports torch.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from hotstart.records.artifact import Kernel, NativeProgram


def path_in_memory(blob: bytes | memoryview) -> str:
    """Put bytes into an anonymous file, which stays; its path."""
    descriptor = os.memfd_create("hotstart", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(blob)
    while _is_open(path := f"/proc/self/fd/{descriptor}"):
        further = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, descriptor + 1)
        os.close(descriptor)
        descriptor = further
    return path


@functools.cache
def _linker() -> tuple[Callable[[bytes, int], int | None], Callable[[int, bytes], int | None]]:
    """Return `dlopen` and `dlsym`; each `ctypes.CDLL` would make a class, which takes as long."""
    process = ctypes.CDLL(None)
    process.dlopen.restype = process.dlsym.restype = ctypes.c_void_p
    process.dlopen.argtypes = [ctypes.c_char_p, ctypes.c_int]
    process.dlsym.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return process.dlopen, process.dlsym


def _is_open(path: str) -> bool:
    """Tell whether the linker knows a library by a path."""
    open_, _ = _linker()
    return open_(path.encode(), os.RTLD_LAZY | os.RTLD_NOLOAD) is not None


def kernel_address(kernel: Kernel) -> int:
    """The address of a kernel's C function, which stays where it is."""
    module = _once(kernel, "function", _opened_kernel)
    address: int = module.address
    return address


def load_program(native: NativeProgram) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the functions `bind` and `call` of a native program, which knows its kernels.

    Programs that do the same with other kernels have the same library. Each gets one of its own,
    since a library keeps the addresses of its kernels.
    """
    kernels = [kernel.name for kernel in native.kernels]
    digest = hashlib.sha256("\n".join(kernels).encode()).hexdigest()[:16]
    module = _once(
        native.library, f"program_{digest}", functools.partial(_opened_program, native.kernels)
    )
    return module.bind, module.call


def _opened_kernel(path: str, module: Any) -> None:
    open_, find = _linker()
    library = open_(path.encode(), os.RTLD_NOW)
    if library is None:
        ctypes.CDLL(path)  # says what is wrong
        raise OSError(f"{path}: the linker opened it at the second try only")
    module.address = find(library, b"kernel")


def _opened_program(kernels: Sequence[Kernel], path: str, module: Any) -> None:
    library = ctypes.PyDLL(path)
    library.hotstart_functions.restype = ctypes.py_object
    start, module.bind, module.call = library.hotstart_functions()
    start([kernel_address(kernel) for kernel in kernels])


def _once(blob: Kernel, kind: str, opened: Callable[[str, Any], None]) -> Any:
    """Open a library that no program has opened; where Python keeps modules it is found again."""
    name = f"hotstart_{blob.name}.{kind}"
    module = sys.modules.get(name)
    if module is None:
        module = types.ModuleType(name)
        opened(path_in_memory(blob.data), module)
        sys.modules[name] = module
    return module
