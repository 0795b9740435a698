"""Processors that a program may be built for: this machine's, a level of x86-64, or 64-bit Arm.

The levels are those of the System V ABI for x86-64, which compilers know as `-march=x86-64-v3`;
`aarch64` is Armv8-A with Advanced SIMD, as every 64-bit Arm that runs Linux and torch has it.
Instructions have the names of flags in `/proc/cpuinfo`, as in a fingerprint.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Literal

TargetName = Literal["native", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"]

X86_64, AARCH64 = "x86_64", "aarch64"
"""Architectures of processors, as `uname -m` has them."""

_BASELINE = "cmov cx8 mmx sse sse2"
_V2 = f"{_BASELINE} cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_V3 = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe"
_V4 = f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"
_LEVELS = {
    "x86-64-v2": tuple(sorted(_V2.split())),
    "x86-64-v3": tuple(sorted(_V3.split())),
    "x86-64-v4": tuple(sorted(_V4.split())),
    "aarch64": ("asimd", "fp"),
}
_MARKS = {X86_64: "sse2", AARCH64: "asimd"}
"""An extension that all processors of an architecture have, and no others."""

VECTOR_BITS = {"x86-64-v2": 0, "x86-64-v3": 256, "x86-64-v4": 512, "aarch64": 128}
"""Bits of the vectors that kernels compute in, by level; 0: they are written without vectors."""

MARCH = {**{name: name for name in _LEVELS}, "aarch64": "armv8-a"}
"""The names of levels as compilers know them."""

_BEST_FIRST: tuple[TargetName, ...] = (
    "native",
    "x86-64-v4",
    "x86-64-v3",
    "x86-64-v2",
    "aarch64",
)


def best_first(targets: Iterable[TargetName]) -> tuple[TargetName, ...]:
    """Order targets by what code for them may use, most first.

    A machine that builds runs all of its own architecture. So `"native"` comes first: it is what
    the machine has that runs the code for the others. Those of another architecture come last.
    """
    return tuple(sorted(targets, key=_BEST_FIRST.index))


def this_architecture() -> str:
    """Name the architecture of this machine, as `uname -m` does."""
    return os.uname().machine


def architecture_of(target: TargetName) -> str:
    """Name the architecture of a target's processors, as `uname -m` does; "native" is this one."""
    if target == "native":
        return this_architecture()
    return AARCH64 if target == "aarch64" else X86_64


def is_foreign(target: TargetName) -> bool:
    """Tell whether code for a target is for another architecture than this machine's."""
    return architecture_of(target) != this_architecture()


def marks_of(targets: Iterable[TargetName], target: TargetName) -> list[str]:
    """List what a processor must have for a target's program, even if it has no native code.

    Where all targets are of one architecture that is nothing; else what tells the architectures
    apart, so that each machine takes the program of its own.
    """
    several = len({architecture_of(each) for each in targets}) > 1
    return [_MARKS[architecture_of(target)]] if several else []


def architecture_for(instructions: Collection[str]) -> str:
    """Name the architecture that instructions belong to; empty if they do not tell."""
    return next((name for name, mark in _MARKS.items() if mark in instructions), "")


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
