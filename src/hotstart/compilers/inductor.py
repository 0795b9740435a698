"""Compile pieces with Inductor, into data that needs no Inductor to run."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from msgspec.structs import replace
from torch import fx

from hotstart import _torch
from hotstart.capture.captured import example_of
from hotstart.capture.conditions import counterexample
from hotstart.compilers import lean
from hotstart.compilers.extract import Extracted, extract
from hotstart.compilers.job import Job, Narrowed
from hotstart.errors import OptionsError
from hotstart.partition.digest import Token, constant_token, hash_bytes
from hotstart.records.artifact import CompiledUnit, Kernel
from hotstart.records.shapes import Interval
from hotstart.runtime.generated import unit_code
from hotstart.stitching.piece import piece_as_source

if TYPE_CHECKING:
    import sympy

log = logging.getLogger(__name__)


class InductorCompiler:
    """Compiles jobs with Inductor.

    Args:
        settings: names and values of `torch._inductor.config`, in force while compiling.
        jobs: how many C++ kernels are compiled at a time.

    Raises:
        OptionsError: Inductor has no setting of a given name.
    """

    def __init__(self, settings: Mapping[str, Any], jobs: int) -> None:
        self._given = dict(settings)
        self._jobs = jobs
        try:
            self._settings = _torch.inductor_settings(settings, jobs)
        except AttributeError as error:
            raise OptionsError(
                f"inductor: {error} is no setting of torch._inductor.config"
            ) from None
        self._warming: threading.Thread | None = None

    def token(self) -> Token:
        """Identify the settings that were given; custom passes by their `uuid()`."""
        return ("inductor", *((n, setting_token(v)) for n, v in sorted(self._given.items())))

    def warm_up(self) -> None:
        """Probe the CPU and precompile the header in the background."""
        # Settings are context variables, so the thread gets a copy of this context.
        context = contextvars.copy_context()

        def work() -> None:
            # Whatever goes wrong here goes wrong again, and is reported, in the first compile.
            with contextlib.suppress(Exception):
                context.run(_torch.warm_up_inductor, self._settings)

        self._warming = threading.Thread(target=work, name="hotstart-warm-up", daemon=True)
        self._warming.start()

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a piece; one that needs AOTAutograd's runtime wrappers runs op by op instead."""
        self.close()
        for node in (*job.piece.inputs, *job.piece.outputs):
            if not _torch.is_fake(example_of(node)):
                kind = type(example_of(node)).__qualname__
                return self.op_by_op(job, f"{node.name} is a {kind}")
        for number, node in enumerate(job.piece.inputs):
            if example_of(node).is_conj() or example_of(node).is_neg():
                return self.op_by_op(job, f"input {number} is conjugated when it is read")
        extracted = extract(job)
        holds = partial(_holds, job, extracted)
        try:
            output = _torch.compile_with_inductor(
                extracted.module,
                extracted.inputs,
                extracted.mode,
                self._settings,
                memory(job),
                extracted.symbols,
                holds,
            )
        except _torch.Narrowing as narrowing:
            return _narrowed(job, extracted, narrowing.condition)
        for condition in _torch.conditions(extracted.symbols.env):
            if not holds(condition.expr):
                return _narrowed(job, extracted, condition)
        if output is None:
            return _as_captured(job)
        if around := (*output.around, *_written_views(job)):
            return self.op_by_op(job, "; ".join(around))
        try:
            made = lean.reduce(
                output.source, output.kernels, output.constants, output.outputs, weights(job)
            )
        except lean.NotLean as error:
            return self.op_by_op(job, str(error))
        expected = strides(job, extracted)
        needed = _torch.registering_modules(node.target for node in job.piece.nodes)
        return CompiledUnit(
            key=job.key,
            code=unit_code(job.key, "".join(f"import {name}\n" for name in needed) + made.source),
            kernels=tuple((name, _kernel(Path(output.kernels[name]))) for name in made.kernels),
            constants=tuple((name, output.constants[name]) for name in made.constants),
            loose=tuple(i for i, made in enumerate(output.strides) if made != expected[i]),
        )

    def close(self) -> None:
        """Wait for the background work."""
        if self._warming is not None:
            self._warming.join()
            self._warming = None

    def op_by_op(self, job: Job, reason: str) -> CompiledUnit:
        """Make a unit that runs the captured operators, and say why in the log and the unit."""
        log.warning("%s runs op by op, since %s", job.piece.name, reason)
        return replace(_as_captured(job), op_by_op=reason)

    def without(self, name: str) -> InductorCompiler:
        """Make a compiler that leaves out one of Inductor's passes."""
        left_out = ",".join(filter(None, (self._given.get("disabled_passes"), name)))
        return InductorCompiler({**self._given, "disabled_passes": left_out}, self._jobs)


def _as_captured(job: Job) -> CompiledUnit:
    """Make a unit that runs the operators as they were captured."""
    unit = piece_as_source(job.graph, job.piece, tuple(job.bounds), job.key)
    plain = (_torch.is_fake(example_of(node)) for node in job.piece.outputs)
    return replace(unit, loose=tuple(number for number, is_plain in enumerate(plain) if is_plain))


def _kernel(path: Path) -> Kernel:
    """Read a compiled kernel, without the paths of this machine.

    Headers put their paths (`__FILE__`) into messages of errors. Folders are overwritten in place,
    since the linker may let strings share their ends.
    """
    blob = path.read_bytes()
    for folder in (Path(torch.__file__).parent, path.parents[1]):
        written = os.fsencode(folder)
        blob = blob.replace(written, b"/" * len(written))
    return Kernel(hash_bytes(blob), blob)


def strides(job: Job, extracted: Extracted) -> list[tuple[Any, ...]]:
    """Express the traced strides of a piece's outputs over the symbols it is compiled with."""
    symbols = extracted.symbols.by_name.values()
    axes = {_torch.axis_symbol(axis): s for axis, s in zip(job.bounds, symbols, strict=True)}
    return [
        tuple(job.number(stride, axes) for stride in example_of(node).stride())
        for node in job.piece.outputs
    ]


def _written_views(job: Job) -> Iterator[str]:
    """Find outputs that Inductor may copy although they share memory that is written to.

    Plain views of an input are no outputs of the unit (`Piece.views`); these have another dtype.
    """
    written = {
        _torch.storage_of(example_of(node)): index
        for index, node in enumerate(job.piece.inputs)
        if _torch.was_mutated(example_of(node))
    }
    for number, node in enumerate(job.piece.outputs if written else ()):
        index = written.get(_torch.storage_of(example_of(node)))
        if index is not None:
            yield f"output {number} reads the memory of input {index}, which is written to"


def memory(job: Job) -> tuple[list[int], list[int]]:
    """Number the storages of a piece's inputs, and of its outputs."""

    def numbers(nodes: Iterable[fx.Node]) -> list[int]:
        return [_torch.storage_of(example_of(node)) for node in nodes]

    return numbers(job.piece.inputs), numbers(job.piece.outputs)


def weights(job: Job) -> frozenset[int]:
    """List the positions of a unit's arguments that are weights."""
    return frozenset(
        len(job.bounds) + index
        for index, node in enumerate(job.piece.inputs)
        if job.graph.is_weight(node)
    )


def setting_token(value: Any) -> Token:
    """Identify a setting: a custom pass by its `uuid()`, containers item by item.

    Raises:
        OptionsError: a custom pass without a `uuid()`.
    """
    if isinstance(value, Mapping):
        return ("dict", *((str(k), setting_token(v)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(setting_token, value))
    token = _torch.pass_token(value)
    if token is not None:
        return ("pass", type(value).__qualname__, token)
    known = constant_token(value)
    if isinstance(known, tuple) and known[0] == "object":
        raise OptionsError(
            f"inductor: {value!r} has no uuid(), so builds with it cannot be told apart. "
            "Derive it from torch._inductor.custom_graph_pass.CustomGraphPass."
        )
    return known


def _holds(job: Job, extracted: Extracted, condition: sympy.Basic) -> bool:
    """Tell whether a condition over a compile's symbols holds for every size of a job."""
    import sympy

    if condition in extracted.assumed:
        return True
    expr = condition.xreplace(_axes(job, extracted))
    intervals = {
        _torch.axis_symbol(axis): Interval(b.low, b.high) for axis, b in job.bounds.items()
    }
    if not expr.free_symbols <= intervals.keys():
        return True  # about a number the compile made up, such as a loop's; the code asserts it
    others = sympy.Not(sympy.And(*job.where))
    return counterexample(sympy.Or(others, expr), intervals) is None


def _narrowed(job: Job, extracted: Extracted, condition: _torch.Condition) -> Narrowed:
    expr = condition.expr.xreplace(_axes(job, extracted))
    source = condition.source or f"compiling {job.piece.name}"
    return Narrowed(_torch.Condition(expr, source))


def _axes(job: Job, extracted: Extracted) -> dict[sympy.Symbol, sympy.Symbol]:
    symbols = extracted.symbols.by_name.values()
    return {s: _torch.axis_symbol(axis) for axis, s in zip(job.bounds, symbols, strict=True)}
