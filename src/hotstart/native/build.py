"""Compile variants and the units that they call into one native library."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hotstart._torch.native.c_shims import compile_command
from hotstart.native.conditions import write_where
from hotstart.native.operators import NotNative
from hotstart.native.program import Program
from hotstart.native.unit import NativeUnit, translate_unit
from hotstart.native.variant import translate_variant
from hotstart.partition.tokens import hash_bytes
from hotstart.records.artifact import (
    Blob,
    Code,
    CompiledUnit,
    Kernel,
    NativeProgram,
    StitchedCall,
)
from hotstart.records.dims import Dim
from hotstart.records.shapes import Variant, labelled
from hotstart.runtime.code.generated import code_of
from hotstart.specialize.piece_store import PieceStore
from hotstart.targets import TargetName, architecture_of

log = logging.getLogger("hotstart")

Reasons = tuple[tuple[str, str], ...]
"""Variants without a native form, each with the step that has none."""


class Libraries:
    """The native libraries of a build: for several targets of an architecture they may be equal."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], Kernel] = {}  # by architecture and digest of the source

    def made_of(self, source: str, target: TargetName, kept: PieceStore | None) -> Kernel:
        """Find the library of a source in this build or an earlier one, else compile it.

        Raises:
            NotNative: only kept libraries may be used, and the store has none of this source.
            OSError: as `_compiled`.
            subprocess.SubprocessError: likewise.
        """
        digest = hash_bytes(source.encode())
        made = (architecture_of(target), digest)
        library = None if kept is None else kept.library(digest)
        if library is None:
            library = self._made.get(made)
            if library is None and kept is not None and kept.only_kept:
                raise NotNative("the store must have its library, and has not")
            library = library or _compiled(source, target)
            if kept is not None:
                kept.put_library(digest, library)
        return self._made.setdefault(made, library)


def build_native(
    calls: Sequence[StitchedCall],
    units: Mapping[str, CompiledUnit],
    libraries: Libraries,
    elsewhere: Sequence[str],
    kept: PieceStore | None,
    target: TargetName,
) -> tuple[NativeProgram | None, Reasons]:
    """Translate and compile the variants of calls; None if none of them has a native form.

    Args:
        calls: the calls, stitched.
        units: what they call, by key.
        libraries: those of this build; a library of an equal source is used again.
        elsewhere: devices of tensors besides the CPU, for which there is no native form.
        kept: libraries of earlier builds; this one is added.
        target: the processors that it is for.
    """
    if elsewhere:
        return None, tuple((n, f"it has tensors on {', '.join(elsewhere)}") for n in _names(calls))
    program = Program()
    translated: dict[str, NativeUnit] = {}
    runs, reasons = _translate(program, calls, units, translated)
    if not any(runs):
        return None, reasons
    source = program.source()
    try:
        library = libraries.made_of(source, target, kept)
    except NotNative as reason:
        return None, tuple((name, str(reason)) for name in _names(calls))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("there is no native form, since it did not compile: %s", error)
        return None, tuple((name, "it did not compile") for name in _names(calls))
    native = NativeProgram(
        library=library,
        source=Blob("program.cpp", source.encode()),
        kernels=tuple(program.kernels.values()),
        units=tuple((key, _code("unit", each.source)) for key, each in translated.items()),
        runs=tuple(runs),
    )
    return native, reasons


def _translate(
    program: Program,
    calls: Sequence[StitchedCall],
    units: Mapping[str, CompiledUnit],
    translated: dict[str, NativeUnit],
) -> tuple[list[Code | None], Reasons]:
    """Translate variants, and units into `translated`; return each variant's Python, or None."""

    def native_unit(unit: CompiledUnit, sizes: int) -> NativeUnit:
        if unit.key not in translated:
            translated[unit.key] = translate_unit(program, unit, sizes)
        return translated[unit.key]

    runs: list[Code | None] = []
    reasons = []
    for call in calls:
        axes = len(call.contract.axes)
        tensors = len(call.contract.tensors) + len(call.contract.given)
        for stitched in call.stitched:
            program.conditions.append(_condition(stitched.variant, call.contract.axes))
            own = [units[key] for key in stitched.units]
            try:
                source = translate_variant(program, stitched, own, native_unit, axes, tensors)
                runs.append(_code("run", source))
            except NotNative as reason:
                reasons.append((labelled(call.name, stitched.variant), str(reason)))
                runs.append(None)
    return runs, tuple(reasons)


def _condition(variant: Variant, axes: Sequence[Dim]) -> str:
    """Write a variant's condition; one without a native form never holds there."""
    try:
        return write_where(variant, axes)
    except NotNative:
        return "false"


def _names(calls: Sequence[StitchedCall]) -> list[str]:
    return [labelled(call.name, each.variant) for call in calls for each in call.stitched]


def _code(kind: str, source: str) -> Code:
    return code_of(f"native_{kind}_{hash_bytes(source.encode())[:12]}", source)


def _compiled(source: str, target: TargetName) -> Kernel:
    """Compile a program, in a folder that is gone afterwards.

    Raises:
        OptionsError: there is no compiler for the target.
        OSError: there is no compiler.
        subprocess.SubprocessError: it refuses, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="hotstart-native-") as folder:
        written, made = Path(folder, "program.cpp"), Path(folder, "program.so")
        written.write_text(source)
        command = compile_command(written, made, target)
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=600)
        blob = made.read_bytes()
    return Kernel(hash_bytes(blob), blob)
