"""The units of a build, and which of them serves a job."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from hotstart import _torch
from hotstart.compilers import Compiler, Job, Narrowed
from hotstart.errors import CompileError
from hotstart.events import Clock
from hotstart.records.artifact import CompiledUnit
from hotstart.specialize.kept import Kept

log = logging.getLogger("hotstart")


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
        kept: what compiles of earlier builds gave, where there is any.

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

        In this order: from the cache, the shared job's before the job's own; by a compile of the
        shared job; by a compile of the job alone.

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
        narrowed: dict[str, Narrowed] = {}
        for each in (shared, job) if several else (job,):
            found = self._from_cache(each)
            if isinstance(found, CompiledUnit):
                return self._add(each, found, "loaded", started)
            if found is not None:
                narrowed[each.key] = found
        if several:
            unit = self._for_all_parts(job, shared, narrowed.get(shared.key), variant)
            if unit is not None:
                return self._add(shared, unit, "compiled", started)
        own = narrowed.get(job.key) or self._compiled(job, variant)
        return own if isinstance(own, Narrowed) else self._add(job, own, "compiled", started)

    def _from_cache(self, job: Job) -> CompiledUnit | Narrowed | None:
        """What an earlier build's compile of a job gave; None if that is not kept."""
        kept = self._kept_of(job)
        found = None if kept is None else kept.get(job)
        if isinstance(found, Narrowed):
            self._not_made.add(job.key)
        return found

    def _for_all_parts(
        self, job: Job, shared: Job, narrowed: Narrowed | None, variant: str
    ) -> CompiledUnit | None:
        """Compile the shared job; None if that fails, or assumes something of sizes.

        Args:
            job: the job that the unit is for.
            shared: the job for other parts as well.
            narrowed: what its compile in an earlier build assumed, if that is known.
            variant: the name of what it is for.
        """
        try:
            found = narrowed or self._compiled(shared, variant)
        except CompileError as error:
            log.debug("%s is compiled for each part of a range: %r", job.piece.name, error)
            return None
        if isinstance(found, CompiledUnit):
            return found
        log.debug("%s is compiled for each part of a range: %s", job.piece.name, found)
        return None

    def _kept_of(self, job: Job) -> Kept | None:
        """The units of earlier builds; None where a job's key means nothing in another process."""
        return self._kept if job.piece.portable else None

    def _compiled(self, job: Job, variant: str) -> CompiledUnit | Narrowed:
        if self._kept is not None:
            self._kept.permit(job)
        piece = job.piece
        _torch.trace_artifact(
            f"hotstart_compile_{piece.name}_{variant}", lambda: f"{job.key}\n{piece}\n"
        )
        with self.clock.phase("compile"):
            try:
                made = self.compiler.compile(job)
            except Exception as error:
                self._not_made.add(job.key)
                reason = f"{type(error).__name__}: {error}"
                raise CompileError(piece.name, piece.layers, variant, reason) from error
        if isinstance(made, Narrowed):
            self._not_made.add(job.key)
        kept = self._kept_of(job)
        if kept is not None:
            kept.put(job, made)
        return made

    def _add(
        self, job: Job, unit: CompiledUnit, action: Literal["compiled", "loaded"], started: float
    ) -> MadeUnit:
        made = MadeUnit(job, unit, action, self.clock.wall_s() - started)
        self._made[job.kind].append(made)
        return made
