"""Compile for processors of another architecture, with a cross compiler and without their libtorch.

Code compiled in this way cannot be loaded into this process. Symbols of libtorch are resolved where
the code is loaded, so an empty library of its name is linked in its place.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import subprocess
import types
from collections.abc import Callable, Iterator
from typing import Any

from hotstart._torch.in_between import in_between
from hotstart.errors import OptionsError
from hotstart.targets import TargetName, architecture_of


def cross_compiler(target: TargetName) -> str:
    """Find the C++ compiler for a target of another architecture; its path.

    Raises:
        OptionsError: there is none on `PATH`.
    """
    architecture = architecture_of(target)
    name = f"{architecture}-linux-gnu-g++"
    found = shutil.which(name)
    if found is None:
        raise OptionsError(
            f"target: expected a compiler for {target} on PATH, {name}, found none\n"
            f"do: install it (the package g++-{architecture}-linux-gnu of Debian, Ubuntu and "
            f"others), or build on a machine with such a processor"
        )
    return found


@functools.cache
def libc_of(compiler: str) -> str:
    """Name the release of the C library that a cross compiler builds for, such as `glibc 2.36`.

    Raises:
        OptionsError: it builds for no C library, or for another than glibc.
    """
    command = [compiler, "-x", "c++", "-E", "-dM", "-include", "features.h", "/dev/null"]
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = str(error)
    found = dict(re.findall(r"^#define __GLIBC(_MINOR)?__ (\d+)$", told, re.MULTILINE))
    if found.keys() != {"", "_MINOR"}:
        raise OptionsError(
            f"target: expected that {compiler} has the headers of glibc, found none\n"
            "do: install the C library for the target (Debian's libc6-dev-arm64-cross)"
        )
    return f"glibc {found['']}.{found['_MINOR']}"


def cross_settings(target: TargetName) -> dict[str, Any]:
    """Inductor's settings for a target of another architecture: its compiler, and no libtorch.

    `aot_inductor.link_libtorch` (2.11 to 2.15) is for kernels as well. They call nothing of it but
    Sleef's functions of vectors, of which code for another architecture uses none.

    Raises:
        OptionsError: there is no compiler.
    """
    return {"cpp.cxx": (None, cross_compiler(target)), "aot_inductor.link_libtorch": False}


@contextlib.contextmanager
def nothing_loaded() -> Iterator[None]:
    """Make Inductor return the path of each kernel that this thread compiles, without loading it.

    `CppPythonBindingsCodeCache._load_library_inner` (2.11 to 2.15) imports the shared object.
    """
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    with in_between(CppPythonBindingsCodeCache, "_load_library_inner", _not_loaded):
        yield


def _not_loaded(load: Callable[..., Any], path: str, key: str) -> types.ModuleType:
    """Make a stand-in for a kernel's module; its function has the path, and cannot be called."""
    module = types.ModuleType(key)
    module.__file__ = path

    def kernel(self: object, *args: object) -> None:
        raise RuntimeError(f"{path} is for another architecture, and runs nowhere here")

    module.__dict__["kernel"] = types.MethodType(kernel, module)
    return module
