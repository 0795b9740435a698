"""Compare each unit that Inductor makes with the operators it was made from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from hotstart._torch.inductor.compile_fx import doubtful_passes
from hotstart.compilers.inductor.compiler import PACKING, InductorCompiler
from hotstart.compilers.job import Job, Narrowed
from hotstart.compilers.proof.trial import Difference, NotComparable, Trial
from hotstart.compilers.proof.trial_sizes import Sizes, at, sizes_to_try
from hotstart.events import Clock
from hotstart.options import Prove
from hotstart.partition.tokens import Token
from hotstart.records.artifact import CompiledUnit, Proof

log = logging.getLogger(__name__)

_MOST = 1 << 25
"""Bound on the elements of one run's tensors, summed over all sizes; each is run several times."""


class ProvenCompiler:
    """Compiles with Inductor, and proves the units.

    A unit that differs from its operators is compiled again without a pass that is known to cause
    such differences; if that one differs too, the piece runs op by op.

    Args:
        compiler: makes the units.
        prove: whether to prove `"all"` of them, or the `"first"` of every digest.
        clock: measures the time this takes.
    """

    def __init__(self, compiler: InductorCompiler, prove: Prove, clock: Clock) -> None:
        self._compiler = compiler
        self._clock = clock
        self._prove = prove
        self._proven: set[str] = set()

    def token(self) -> Token:
        """Identify the compiler and `prove`: units that are proven have keys of their own."""
        return (self._compiler.token(), "proven", self._prove)

    def warm_up(self) -> None:
        """Start the compiler's background work."""
        self._compiler.warm_up()

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a piece, and prove the unit."""
        unit = self._compiler.compile(job)
        if isinstance(unit, Narrowed) or unit.op_by_op:
            return unit
        if self._prove == "first" and job.piece.digest in self._proven:
            return unit
        self._proven.add(job.piece.digest)
        with self._clock.phase("prove"):
            return self._proven_unit(job, unit)

    def close(self) -> None:
        """Wait for the compiler's background work."""
        self._compiler.close()

    def _proven_unit(self, job: Job, unit: CompiledUnit) -> CompiledUnit:
        trial, tried = Trial(job), sizes_to_try(job, _MOST)
        first: Difference | None = None
        for made, without in self._ways(job, unit):
            proof, difference = _proof(trial, made, tried)
            if proof.skipped and any(bound.of_data for bound in job.bounds.values()):
                # Eager may raise for empty tensors; compiled code would not.
                return self._compiler.op_by_op(job, f"it is not proven: {proof.skipped[0]}")
            if difference is None:
                if first is None:
                    return replace(made, proof=proof)
                log.warning("%s is compiled without %s: %s", job.piece.name, without, first)
                return replace(made, proof=replace(proof, without=without, why=str(first)))
            first = first or difference
        return self._compiler.op_by_op(job, f"what Inductor makes of it is wrong: {first}")

    def _ways(self, job: Job, unit: CompiledUnit) -> Iterator[tuple[CompiledUnit, str]]:
        """Yield the unit, then a unit without each doubtful pass, with the name of the pass."""
        yield unit, ""
        for name in (PACKING, *doubtful_passes()):
            try:
                with self._clock.phase("compile"):
                    made = self._compiler.without(name).compile(job)
            except Exception as error:  # noqa: BLE001  whatever Inductor raises; other ways are left
                log.debug("%s does not compile without %s: %r", job.piece.name, name, error)
                continue
            if isinstance(made, CompiledUnit) and made.source != unit.source and not made.op_by_op:
                yield made, name


def _proof(
    trial: Trial, unit: CompiledUnit, tried: Iterable[Sizes]
) -> tuple[Proof, Difference | None]:
    """Compare a unit with its operators at some sizes, up to the first difference."""
    compared: list[str] = []
    skipped: list[str] = []
    for sizes in tried:
        try:
            difference = trial.difference(unit, sizes)
        except NotComparable as error:
            skipped.append(str(error))
            continue
        if difference is not None:
            trial.written_weight()  # what this unit wrote is not for the next one to answer for
            return Proof(), difference
        compared.append(at(sizes).removeprefix(" at ") or "static")
    written = trial.written_weight()
    if written is not None:
        return Proof(), written
    return Proof(tuple(compared), tuple(skipped)), None
