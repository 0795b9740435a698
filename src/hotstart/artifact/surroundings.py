"""Describe all of a machine and its packages that decides what a build makes.

A job that is compiled elsewhere gives the same unit where these are the same, and is refused where
they are not. What is set inside of a process is not among them: see `_torch.ProcessState`.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from hotstart._torch.processes.own_process import cpp_compiler, cpp_compiler_for
from hotstart.artifact import fingerprint
from hotstart.targets import TargetName, is_foreign

INSTRUCTIONS = "instructions"
"""The part that does not matter where code is compiled for a level of x86-64."""

CROSS_COMPILER = "C++ compiler for aarch64"
"""The part that matters only where code is compiled for another architecture."""

_PARTS = ("python", "torch", "torch_build", "platform", "libc")
_PREFIXES = ("TORCHINDUCTOR_", "TORCHDYNAMO_", "TORCH_COMPILE_")
_NO_MATTER = {"CACHE", "THREADS", "WORKER", "PROGRESS", "LOGS", "DEBUG", "TRACE", "PROFILE"}
"""Variables with these words in their names change how, not what, torch compiles."""

_ONEDNN = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def surroundings() -> dict[str, str]:
    """Name all of this machine and its packages that decides what a build makes."""
    host = fingerprint.host()
    return {
        "hotstart": version(host["hotstart"]),
        **{name: str(host[name]) for name in _PARTS},
        "C++ compiler": cpp_compiler(),
        CROSS_COMPILER: cpp_compiler_for("aarch64"),
        INSTRUCTIONS: " ".join(host[INSTRUCTIONS]),
        **{f"environment {name}": value for name, value in set_for_compilers().items()},
    }


def no_matter(targets: Collection[TargetName]) -> tuple[str, ...]:
    """Name the parts that do not decide what is compiled for some targets."""
    instructions = () if "native" in targets else (INSTRUCTIONS,)
    return instructions if any(map(is_foreign, targets)) else (*instructions, CROSS_COMPILER)


def different(
    expected: Mapping[str, str], found: Mapping[str, str], leave_out: Collection[str] = ()
) -> list[str]:
    """Say for each part that differs what was expected and what was found.

    Args:
        expected: the surroundings of the process that the result is for.
        found: those of the process that is to make it.
        leave_out: names of parts that do not matter.
    """
    names = [name for name in {**expected, **found} if name not in leave_out]
    return [
        f"{name}: {_compared(name, expected.get(name), found.get(name))}"
        for name in names
        if expected.get(name) != found.get(name)
    ]


def _compared(name: str, expected: str | None, found: str | None) -> str:
    if name != INSTRUCTIONS or expected is None or found is None:
        return f"expected {expected or 'none'}, found {found or 'none'}"
    wanted, here = set(expected.split()), set(found.split())
    lacks, more = (" ".join(sorted(flags)) or "none" for flags in (wanted - here, here - wanted))
    return f"expected the same, found a processor that lacks {lacks} and has besides {more}"


def version(number: str) -> str:
    """The version; in development, where many differ under one number, with a hash of the code."""
    return number if ".dev" not in number else f"{number} {_hash_of_code()}"


@functools.cache
def _hash_of_code() -> str:
    hashed = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def compile_variables() -> dict[str, str]:
    """The environment variables that decide how torch compiles, sorted by name."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_PREFIXES) and _NO_MATTER.isdisjoint(name.split("_"))
    }


def set_for_compilers() -> dict[str, str]:
    """The same, with those that say which instructions torch and oneDNN may use."""
    limits = {name: os.environ[name] for name in _ONEDNN if name in os.environ}
    return {**compile_variables(), **limits}
