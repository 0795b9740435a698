"""Make a unit of the code that Inductor generated for a piece."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hotstart._torch.graphs.symbols import axis_symbol
from hotstart._torch.inductor.compile_fx import InductorOutput
from hotstart._torch.inductor.joined_kernels import compile_kernels
from hotstart._torch.packing.recipes import Recipe
from hotstart._torch.running.operators import registering_modules
from hotstart.capture.captured import example_of
from hotstart.compilers.extract import Extracted
from hotstart.compilers.inductor import lean
from hotstart.compilers.inductor.by_size import with_choice
from hotstart.compilers.job import Candidate, Job
from hotstart.partition.tokens import hash_bytes
from hotstart.records.artifact import CompiledUnit, Kernel, Preparation
from hotstart.runtime.code.generated import code_of, unit_code
from hotstart.stitching.piece import functions_as_source

if TYPE_CHECKING:
    import sympy


def candidate_of(
    job: Job, extracted: Extracted, output: InductorOutput, settings: Mapping[str, Any]
) -> Candidate:
    """Make a unit of what Inductor generated for a job, and compile the kernels that it calls.

    Args:
        job: the job.
        extracted: its piece, as Inductor got it.
        output: what Inductor generated.
        settings: of Inductor, in force while kernels are compiled.

    Raises:
        NotLean: the code needs more than torch.
        CppCompileError: a kernel does not compile.
    """
    reduced = lean.reduce(
        output.source,
        output.kernels,
        output.constants,
        output.outputs,
        _bound_arguments(job, output),
        output.written,
    )
    kernels = {name: output.kernels[name] for name in reduced.kernels}
    compiled = compile_kernels(kernels, settings)
    expected = _strides(job, extracted)
    numbers = {index: number for number, index in enumerate(weight_positions(job))}
    needed = registering_modules(node.target for node in job.piece.nodes)
    unit = CompiledUnit(
        key=job.key,
        code=unit_code(job.key, "".join(f"import {name}\n" for name in needed) + reduced.source),
        kernels=tuple(
            (name, _kernel(Path(path), kernels[name].source)) for name, path in compiled.items()
        ),
        constants=tuple((name, output.constants[name]) for name in reduced.constants),
        loose=tuple(i for i, stride in enumerate(output.strides) if stride != expected[i]),
        kept=tuple(numbers[index] for index in output.kept if index in numbers),
        preparations=tuple(_preparation(recipe, numbers) for recipe in output.recipes),
    )
    axes = axes_of(job, extracted)
    if by_size := output.by_size:
        instead = tuple(
            {number: _preparation(recipe, numbers) for number, recipe in each.items()}
            for each in by_size.instead
        )
        unit = with_choice(job, unit, by_size, axes[by_size.size], instead)
    return Candidate(unit, None if output.rows is None else output.rows.xreplace(axes))


def _kernel(path: Path, source: str) -> Kernel:
    """Read a compiled kernel, without the paths of this machine.

    Headers put their paths (`__FILE__`) into messages of errors. Folders are overwritten in place,
    since the linker may let strings share their ends.
    """
    blob = path.read_bytes()
    for folder in (Path(torch.__file__).parent, path.parents[1]):
        written = os.fsencode(folder)
        blob = blob.replace(written, b"/" * len(written))
    return Kernel(hash_bytes(blob), blob, source)


def _strides(job: Job, extracted: Extracted) -> list[tuple[Any, ...]]:
    """Express the traced strides of a piece's outputs over the symbols it is compiled with."""
    symbols = extracted.symbols.by_name.values()
    axes = {axis_symbol(axis): s for axis, s in zip(job.bounds, symbols, strict=True)}
    return [
        tuple(job.graph.number_at(stride, axes) for stride in example_of(node).stride())
        for node in job.piece.outputs
    ]


def _bound_arguments(job: Job, output: InductorOutput) -> frozenset[int]:
    """List the positions of arguments that are bound once: weights, and what is made of them."""
    own = set(weight_positions(job))
    kept = {number for number, index in enumerate(output.kept) if index in own}
    prepared = sum(recipe.outputs for recipe in output.recipes)
    return frozenset(kept | {len(output.kept) + number for number in range(prepared)})


def _preparation(recipe: Recipe, numbers: Mapping[int, int]) -> Preparation:
    """Write a recipe as source. `numbers` has the numbers of weights by position."""
    forms = {"prepare": recipe.module}
    if recipe.plain is not None:
        forms["unpacked"] = recipe.plain
    source = functions_as_source(forms)
    digest = hash_bytes(source.encode())
    return Preparation(
        code_of(f"prepare_{digest[:16]}", source),
        tuple(numbers[index] for index in recipe.weights),
        recipe.plain is not None,
    )


def weight_positions(job: Job) -> tuple[int, ...]:
    """List the positions of a piece's arguments that are weights."""
    return tuple(
        len(job.bounds) + index
        for index, node in enumerate(job.piece.inputs)
        if job.graph.is_weight(node)
    )


def axes_of(job: Job, extracted: Extracted) -> dict[sympy.Symbol, sympy.Symbol]:
    """Map the symbols that a piece is compiled with to the axes of its graph."""
    symbols = extracted.symbols.by_name.values()
    return {s: axis_symbol(axis) for axis, s in zip(job.bounds, symbols, strict=True)}
