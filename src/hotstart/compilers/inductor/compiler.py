"""Compile pieces with Inductor, into data that needs no Inductor to run."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from torch import fx

from hotstart._torch.graphs.symbols import (
    Condition,
    axis_symbol,
    conditions,
    is_fake,
    readable,
)
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart._torch.inductor.compile_fx import (
    InductorOutput,
    Packing,
    compile_with_inductor,
    inductor_settings,
)
from hotstart._torch.inductor.cross import cross_settings
from hotstart._torch.inductor.first_kernel import warm_up_inductor
from hotstart._torch.inductor.sizes import Narrowing
from hotstart._torch.inductor.target_flags import compiling_for
from hotstart._torch.kernels.attention import attention_kernel
from hotstart._torch.kernels.linear import linear_kernel
from hotstart._torch.packing.separate import Pack
from hotstart.capture.captured import example_of
from hotstart.compilers.extract import Extracted, extract
from hotstart.compilers.inductor import attention, packing_rule
from hotstart.compilers.inductor.lean import NotLean
from hotstart.compilers.inductor.linear import Given, with_linears
from hotstart.compilers.inductor.make_unit import axes_of, candidate_of, weight_positions
from hotstart.compilers.inductor.tuning import Measure, tuned
from hotstart.compilers.job import Candidate, Job, Narrowed
from hotstart.errors import OptionsError
from hotstart.options import PackWeights
from hotstart.partition import Piece
from hotstart.partition.conditions import counterexample
from hotstart.partition.tokens import Token, setting_token
from hotstart.records.artifact import CompiledUnit
from hotstart.records.shapes import Interval
from hotstart.stitching.piece import piece_as_source
from hotstart.targets import VECTOR_BITS, TargetName, is_foreign

if TYPE_CHECKING:
    import sympy

PACKING = "packing"
"""The name that `without` has for taking out what depends on weights alone."""

log = logging.getLogger(__name__)


class InductorCompiler:
    """Compiles jobs with Inductor.

    Args:
        settings: names and values of `torch._inductor.config`, in force while compiling.
        jobs: how many C++ kernels are compiled at a time.
        pack_weights: as in `hotstart.Options`.
        tune: measures ways to compute linears, of which the fastest are taken; None: it is not
            measured.
        target: the processor that kernels are compiled for. For another architecture it is a cross
            compiler that compiles them, whatever `cpp.cxx` says.

    Raises:
        OptionsError: Inductor has no setting of a given name, one contradicts the target, or there
            is no compiler for it.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        jobs: int,
        pack_weights: PackWeights = False,
        tune: Measure | None = None,
        target: TargetName = "native",
    ) -> None:
        self._given = dict(settings)
        self._jobs = jobs
        self._pack_weights = pack_weights
        self._tune = tune
        self._target = target
        self._processor = packing_rule.processor_of(target)
        if target != "native" and settings.get("cpp.march") is not None:
            raise OptionsError(
                f"inductor: got cpp.march={settings['cpp.march']!r} with target={target!r}, which "
                "decides it\ndo: leave one of them out"
            )
        cross = cross_settings(target) if is_foreign(target) else {}
        try:
            wanted = {**settings, **cross}
            self._settings = inductor_settings(wanted, jobs, bool(pack_weights))
        except AttributeError as error:
            raise OptionsError(
                f"inductor: {error} is not a setting of torch._inductor.config"
            ) from None
        self._warming: threading.Thread | None = None

    def token(self) -> Token:
        """Identify the settings that were given; custom passes by their `uuid()`."""
        rule = packing_rule.token(self._pack_weights, self._processor)
        packs = ("packs", *rule) if self._pack_weights else ()
        tuned = ("tuned",) if self._tune else ()
        target = ("target", self._target) if self._target != "native" else ()
        return (
            "inductor",
            *packs,
            *tuned,
            *target,
            *((n, setting_token(v)) for n, v in sorted(self._given.items())),
        )

    def warm_up(self) -> None:
        """Probe the CPU and precompile the header in the background."""
        # Settings are context variables, so the thread gets a copy of this context.
        context = contextvars.copy_context()

        def work() -> None:
            # Whatever goes wrong here goes wrong again, and is reported, in the first compile.
            with contextlib.suppress(Exception), compiling_for(self._target):
                context.run(warm_up_inductor, self._settings)

        self._warming = threading.Thread(target=work, name="hotstart-warm-up", daemon=True)
        self._warming.start()

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a piece; one that needs AOTAutograd's runtime wrappers runs op by op instead.

        So does a piece with data-dependent numbers that Inductor cannot compile for all of their
        values: such numbers have no variants.
        """
        self._await_warm_up()
        data = {axis for axis, bound in job.bounds.items() if bound.of_data}
        try:
            with compiling_for(self._target):
                made = self._compile(job)
        except Exception as error:
            if not data:
                raise
            told = str(error).partition("\n")[0]
            return self.op_by_op(job, f"Inductor raises {type(error).__name__}: {told}")
        if isinstance(made, Narrowed):
            about = {*map(str, made.condition.expr.free_symbols)} & data
            if about:
                return self.op_by_op(
                    job,
                    f"compiling it assumes {readable(made.condition.expr)}, and "
                    f"{', '.join(sorted(about))} depends on data",
                )
        return made

    def _compile(self, job: Job) -> CompiledUnit | Narrowed:
        for node in (*job.piece.inputs, *job.piece.outputs):
            if not is_fake(example_of(node)):
                kind = type(example_of(node)).__qualname__
                return self.op_by_op(job, f"{node.name} is a {kind}")
        for number, node in enumerate(job.piece.inputs):
            if example_of(node).is_conj() or example_of(node).is_neg():
                return self.op_by_op(job, f"input {number} is conjugated when it is read")
        choose = packing_rule.rule(self._pack_weights, self._processor)
        constant = _constant_weights(job)
        if choose is None or not constant:
            return _unit(self._candidate(job, None))
        try:
            by_rule = self._pack_weights is True
            made = _unit(self._candidate(job, Packing(constant, choose), unpacked_too=by_rule))
        except Exception as error:  # noqa: BLE001  whatever passes raise that meet no value
            made = _unit(self._candidate(job, None))
            if isinstance(made, Narrowed):
                return made
            return replace(made, not_packed=f"{type(error).__name__}: {error}")
        if self._tune and isinstance(made, CompiledUnit) and not made.op_by_op:
            return tuned(job, made, partial(self._other_way, job, constant), self._tune)
        return made

    def _other_way(
        self, job: Job, constant: Collection[int], pack: Pack, *, templates: bool
    ) -> Candidate | None:
        """Compile a piece with other linears packed; None if that fails."""
        try:
            made = self._candidate(job, Packing(constant, pack, templates))
        except Exception as error:  # noqa: BLE001  there is a unit that serves the job
            log.debug("%s is not compiled in another way: %r", job.piece.name, error)
            return None
        return made if isinstance(made, Candidate) and not made.unit.op_by_op else None

    def _candidate(
        self, job: Job, taken_out: Packing | None, *, unpacked_too: bool = False
    ) -> Candidate | Narrowed:
        """Compile a piece in one way; the kernel may compute linears that are packed, too."""
        extracted = extract(job)
        output = self._generated(job, extracted, taken_out)
        if isinstance(output, Narrowed):
            return output
        if output is None:
            return Candidate(_as_captured(job, _alive(job)))
        output = self._with_kernels(job, extracted, output, taken_out, unpacked_too)
        if around := (*output.around, *_written_views(job)):
            return Candidate(self.op_by_op(job, "; ".join(around)))
        try:
            return candidate_of(job, extracted, output, self._settings)
        except NotLean as error:
            return Candidate(self.op_by_op(job, str(error)))

    def _generated(
        self, job: Job, extracted: Extracted, taken_out: Packing | None
    ) -> InductorOutput | Narrowed | None:
        """Run Inductor, for all sizes of a job; None if there is nothing for it to compile."""
        holds = partial(_holds, job, extracted)
        try:
            output = compile_with_inductor(
                extracted.module,
                extracted.inputs,
                extracted.mode,
                self._settings,
                _memory(job),
                extracted.symbols,
                holds,
                taken_out,
                in_one_thread=bool(self._pack_weights),
            )
        except Narrowing as narrowing:
            return _narrowed(job, extracted, narrowing.condition)
        for condition in conditions(extracted.symbols.env):
            if not holds(condition.expr):
                return _narrowed(job, extracted, condition)
        return output

    def _with_kernels(
        self,
        job: Job,
        extracted: Extracted,
        output: InductorOutput,
        taken_out: Packing | None,
        unpacked_too: bool,
    ) -> InductorOutput:
        """Let hotstart's kernels compute linears and attention, where they are faster."""
        if taken_out is not None and VECTOR_BITS.get(self._target) != 0:
            kernel = partial(linear_kernel, self._settings)
            given = Given(job, extracted.inputs, taken_out.weights)
            output = with_linears(given, output, kernel, self._processor, unpacked_too=unpacked_too)
        if self._pack_weights and attention.pays(self._processor):
            kernel = partial(attention_kernel, self._settings)
            output = attention.with_attention(extracted.inputs, output, kernel)
        return output

    def close(self) -> None:
        """Wait for the background work."""
        self._await_warm_up()

    def _await_warm_up(self) -> None:
        if self._warming is not None:
            self._warming.join()
            self._warming = None

    def op_by_op(self, job: Job, reason: str) -> CompiledUnit:
        """Make a unit that runs the captured operators, and say why in the log and the unit."""
        log.warning("%s runs op by op, since %s", job.piece.name, reason)
        return replace(_as_captured(job, job.piece), op_by_op=reason)

    def without(self, name: str) -> InductorCompiler:
        """Make a compiler that leaves out packing, or one of Inductor's passes."""
        if name == PACKING:
            return InductorCompiler(self._given, self._jobs, target=self._target)
        left_out = ",".join(filter(None, (self._given.get("disabled_passes"), name)))
        settings = {**self._given, "disabled_passes": left_out}
        return InductorCompiler(settings, self._jobs, self._pack_weights, self._tune, self._target)


def _unit(made: Candidate | Narrowed) -> CompiledUnit | Narrowed:
    return made.unit if isinstance(made, Candidate) else made


def _as_captured(job: Job, piece: Piece) -> CompiledUnit:
    """Make a unit that runs a piece's operators as they were captured."""
    unit = piece_as_source(job.graph, piece, tuple(job.bounds), job.key)
    plain = (is_fake(example_of(node)) for node in piece.outputs)
    return replace(unit, loose=tuple(number for number, is_plain in enumerate(plain) if is_plain))


def _alive(job: Job) -> Piece:
    """Return a piece without dead nodes."""
    needed = set(job.piece.outputs)
    for node in reversed(job.piece.nodes):
        if node in needed:
            needed.update(job.graph.arguments(node).reads)
    alive = tuple(node for node in job.piece.nodes if node in needed)
    return dataclasses.replace(job.piece, nodes=alive)


def _written_views(job: Job) -> Iterator[str]:
    """Find outputs that Inductor may copy although they share memory that is written to.

    Plain views of an input are no outputs of the unit (`Piece.views`); these have another dtype.
    """
    written = {
        storage_of(example_of(node)): index
        for index, node in enumerate(job.piece.inputs)
        if was_mutated(example_of(node))
    }
    for number, node in enumerate(job.piece.outputs if written else ()):
        index = written.get(storage_of(example_of(node)))
        if index is not None:
            yield f"output {number} reads the memory of input {index}, which is written to"


def _memory(job: Job) -> tuple[list[int], list[int]]:
    """Number the storages of a piece's inputs, and of its outputs."""

    def numbers(nodes: Iterable[fx.Node]) -> list[int]:
        return [storage_of(example_of(node)) for node in nodes]

    return numbers(job.piece.inputs), numbers(job.piece.outputs)


def _constant_weights(job: Job) -> frozenset[int]:
    """List the positions of weights in memory that the graph writes to nowhere."""
    examples = {node: example_of(node) for node in job.graph.placeholders}
    written = {storage_of(t) for t in examples.values() if was_mutated(t)}
    return frozenset(
        index
        for index in weight_positions(job)
        if storage_of(example_of(job.piece.inputs[index - len(job.bounds)])) not in written
    )


def _holds(job: Job, extracted: Extracted, condition: sympy.Basic) -> bool:
    """Tell whether a condition over a compile's symbols holds for every size of a job."""
    import sympy

    if condition in extracted.assumed:
        return True
    expr = condition.xreplace(axes_of(job, extracted))
    intervals = {axis_symbol(axis): Interval(b.low, b.high) for axis, b in job.bounds.items()}
    if not expr.free_symbols <= intervals.keys():
        return True  # about a number the compile made up, such as a loop's; the code asserts it
    others = sympy.Not(sympy.And(*job.where))
    return counterexample(sympy.Or(others, expr), intervals) is None


def _narrowed(job: Job, extracted: Extracted, condition: Condition) -> Narrowed:
    expr = condition.expr.xreplace(axes_of(job, extracted))
    source = condition.source or f"compiling {job.piece.name}"
    return Narrowed(Condition(expr, source))
