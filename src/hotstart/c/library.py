"""Build `libhotstart.so`, with its header beside it. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from hotstart.errors import ArtifactError, OptionsError
from hotstart.version import VERSION

HEADER = "hotstart.h"
LIBRARY = "libhotstart.so"

_SOURCES = Path(__file__).parent
_INTERFACE = _SOURCES.parent / "native"
_COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")


def build_library(
    folder: str | os.PathLike[str], compiler: str | None = None, flags: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """Write the header and the library that C programs are compiled with.

    Args:
        folder: where to; made if it is not there.
        compiler: a compiler of C++17; None: `$CXX`, else the first of c++, g++ and clang++.
        flags: passed to it, after others.

    Returns:
        The header and the library.

    Raises:
        OptionsError: there is no compiler.
        ArtifactError: it refuses, or nothing can be written there.
    """
    command = _compiler(compiler)
    header, library = Path(folder, HEADER), Path(folder, LIBRARY)
    temporary = library.with_name(f".{LIBRARY}.{os.getpid()}")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _compile(command, temporary, flags)
        temporary.replace(library)
        shutil.copyfile(_SOURCES / HEADER, header)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: expected a folder that can be written to and {shlex.join(command)} that "
            f"runs, found: {error}. Name another folder, or a compiler in the environment variable "
            "CXX."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is none
            temporary.unlink(missing_ok=True)
    return header, library


def torch_folder() -> Path | None:
    """Find the folder of torch's libraries without importing torch; None if it is not installed."""
    spec = importlib.util.find_spec("torch")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    found = [Path(place, "lib") for place in places if Path(place, "lib").is_dir()]
    return found[0].resolve() if found else None


def _compiler(named: str | None) -> list[str]:
    """Find a compiler; `CXX` may have words before and after it, such as `ccache g++ -m64`."""
    wanted = named or os.environ.get("CXX") or ""
    for name in (wanted,) if wanted else _COMPILERS:
        if shutil.which(name):
            return [name]
    words = wanted.split()
    if words and shutil.which(words[0]):
        return words
    raise OptionsError(
        f"compiler: expected a compiler of C++, found no {wanted or ' or '.join(_COMPILERS)}\n"
        "do: install one, or name it in the environment variable CXX"
    )


def _compile(compiler: list[str], target: Path, flags: tuple[str, ...]) -> None:
    """Compile all sources as one.

    Raises:
        OSError: the compiler does not run.
        ArtifactError: it refuses.
    """
    sources = sorted(path.name for path in _SOURCES.glob("*.cpp"))
    source = "".join(f'#include "{name}"\n' for name in sources)
    defined = {"VERSION": VERSION, "TORCH_FOLDER": str(torch_folder() or "")}
    command = [
        *compiler,
        *_FLAGS,
        *(f'-DHOTSTART_{name}="{_escaped(value)}"' for name, value in defined.items()),
        *(f"-I{folder}" for folder in (_SOURCES, _INTERFACE)),
        *("-Xlinker", f"--version-script={_SOURCES / 'exports.map'}"),
        "-Wl,-z,defs",  # a compiler of C leaves out the library of C++
        f"-Wl,-soname,{LIBRARY}",  # else programs look for it where it was when they were linked
        *flags,
        *("-x", "c++", "-", "-o", str(target), "-pthread", "-ldl"),
    ]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(
            f"{target.name}: expected that {shlex.join(compiler)} compiles it, found:\n"
            f"{done.stderr[-2000:]}\n"
            "Use another compiler of C++17, in the environment variable CXX."
        )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
