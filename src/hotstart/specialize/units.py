"""The units of a build, and which of them serves a job."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, Protocol

from hotstart import _torch
from hotstart.compilers import Compiler, Job, Narrowed
from hotstart.errors import CompileError, StoreError
from hotstart.events import Clock
from hotstart.records.artifact import CompiledUnit

log = logging.getLogger("hotstart")


class Kept(Protocol):
    """Units of earlier builds."""

    def get(self, key: str) -> CompiledUnit | None:
        """The unit of a job; None if there is none that fits."""

    def put(self, unit: CompiledUnit) -> None:
        """Keep the unit of a job."""


@dataclass(frozen=True)
class MadeUnit:
    """A unit of a build.

    Attributes:
        job: what it was made for.
        unit: the unit.
        action: how it was made.
        seconds: how long that took.
    """

    job: Job
    unit: CompiledUnit
    action: Literal["compiled", "loaded"]
    seconds: float


class Units:
    """Compiles jobs that no unit serves yet.

    A unit serves a job if their digests agree and the unit's sizes include the job's.

    Args:
        compiler: makes units.
        clock: is told.
        kept: units of earlier builds, where there are any.

    Attributes:
        compiler: as given.
        clock: as given.
    """

    def __init__(self, compiler: Compiler, clock: Clock, kept: Kept | None = None) -> None:
        self.compiler = compiler
        self.clock = clock
        self._kept = kept
        self._made: defaultdict[str, list[MadeUnit]] = defaultdict(list)  # by kind of their jobs
        self._not_made: set[str] = set()  # keys of jobs

    def serving(self, job: Job) -> MadeUnit | None:
        """The unit that serves a job: the one that was made for it, else one that includes it."""
        made = self._made[job.kind]
        own = (each for each in made if each.job.key == job.key)
        return next(own, next((each for each in made if each.job.includes(job)), None))

    def make(self, job: Job, shared: Job, variant: str) -> MadeUnit | Narrowed:
        """Make a unit that serves a job, or say what a compile assumed of its sizes.

        Args:
            job: what no unit serves.
            shared: a job for other parts as well, which is tried first; or the job itself.
            variant: the name of what it is for.

        Raises:
            CompileError: the job does not compile.
            StoreError: a store must have it, and has not.
        """
        started = self.clock.wall_s()
        several = shared.key not in {job.key, *self._not_made}
        tried = [shared, job] if several else [job]
        for each in tried:
            unit = self._loaded(each)
            if unit is not None:
                return self._add(each, unit, "loaded", started)
        if several:
            try:
                found = self._compiled(shared, variant)
            except CompileError as error:
                log.debug("%s is compiled for each part of a range: %r", job.piece.name, error)
            else:
                if isinstance(found, CompiledUnit):
                    return self._add(shared, found, "compiled", started)
                log.debug("%s is compiled for each part of a range: %s", job.piece.name, found)
        found = self._compiled(job, variant)
        if isinstance(found, Narrowed):
            return found
        return self._add(job, found, "compiled", started)

    def _loaded(self, job: Job) -> CompiledUnit | None:
        return self._kept.get(job.key) if self._kept is not None and job.piece.portable else None

    def _compiled(self, job: Job, variant: str) -> CompiledUnit | Narrowed:
        piece = job.piece
        _torch.trace_artifact(
            f"hotstart_compile_{piece.name}_{variant}", lambda: f"{job.key}\n{piece}\n"
        )
        with self.clock.phase("compile"):
            try:
                unit = self.compiler.compile(job)
            except StoreError:
                raise
            except Exception as error:
                self._not_made.add(job.key)
                reason = f"{type(error).__name__}: {error}"
                raise CompileError(piece.name, piece.layers, variant, reason) from error
        if isinstance(unit, Narrowed):
            self._not_made.add(job.key)
        elif self._kept is not None and piece.portable:
            self._kept.put(unit)
        return unit

    def _add(
        self, job: Job, unit: CompiledUnit, action: Literal["compiled", "loaded"], started: float
    ) -> MadeUnit:
        made = MadeUnit(job, unit, action, self.clock.wall_s() - started)
        self._made[job.kind].append(made)
        return made
