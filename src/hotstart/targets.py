"""Processors that a program may be built for: this machine's, or a level of x86-64.

The levels are those of the System V ABI for x86-64, which compilers know as `-march=x86-64-v3`.
Instructions have the names of flags in `/proc/cpuinfo`, as in a fingerprint.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

TargetName = Literal["native", "x86-64-v2", "x86-64-v3", "x86-64-v4"]

_BASELINE = "cmov cx8 mmx sse sse2"
_V2 = f"{_BASELINE} cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_V3 = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe"
_V4 = f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"
_LEVELS = {
    "x86-64-v2": tuple(sorted(_V2.split())),
    "x86-64-v3": tuple(sorted(_V3.split())),
    "x86-64-v4": tuple(sorted(_V4.split())),
}

VECTOR_BITS = {"x86-64-v2": 0, "x86-64-v3": 256, "x86-64-v4": 512}
"""Bits of the vectors that kernels compute in, by level; 0: they are written without vectors."""


_BEST_FIRST: tuple[TargetName, ...] = ("native", "x86-64-v4", "x86-64-v3", "x86-64-v2")


def best_first(targets: Iterable[TargetName]) -> tuple[TargetName, ...]:
    """Order targets by what code for them may use, most first; a machine that builds runs them all.

    So `"native"` comes first: it is what the machine has that runs the code for the others.
    """
    return tuple(sorted(targets, key=_BEST_FIRST.index))


def allowed_instructions(target: TargetName, here: Collection[str]) -> list[str]:
    """List the instruction set extensions that code for a target may use, sorted.

    Args:
        target: what the code is for.
        here: those of this machine, all of which `"native"` code may use.
    """
    return sorted(here) if target == "native" else list(_LEVELS[target])


def missing_instructions(target: TargetName, here: Collection[str]) -> list[str]:
    """List the extensions of a target that a machine lacks, given those that it has."""
    return sorted(set(allowed_instructions(target, here)).difference(here))
