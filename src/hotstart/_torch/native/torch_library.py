"""Link to libtorch_cpu without reading it, which takes a linker a fifth of a second of a core.

A shared object names the libraries that it needs; which of them has a name is found at a load. So
an empty library of the same name serves a linker, also for a processor whose libtorch is not here.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

LIBTORCH = "libtorch_cpu.so"
"""The library that has the C functions of operators."""


def in_place_of_libtorch(compiler: str, folder: Path) -> Path:
    """Make an empty library that has libtorch's name, to be linked against; its path.

    It is to be given to a linker by this path: `-ltorch_cpu` finds the real one if a folder of
    torch's comes first.

    Raises:
        OSError: there is no such compiler.
        subprocess.SubprocessError: it refuses.
    """
    command = [compiler, "-shared", "-nostdlib", f"-Wl,-soname,{LIBTORCH}", "-x", "c", "/dev/null"]
    library = folder / LIBTORCH
    subprocess.run([*command, "-o", str(library)], check=True, capture_output=True, timeout=60)
    return library
