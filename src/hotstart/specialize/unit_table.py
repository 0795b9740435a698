"""Table of the units of a build; finds or compiles the one that serves a job."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hotstart._torch.structured_trace import trace_artifact
from hotstart.compilers import Compiler, Job, Narrowed
from hotstart.compilers.workers.outcome import Outcome, WorkerPool
from hotstart.compilers.workers.pool import Workers
from hotstart.errors import CompileError
from hotstart.events import HERE, Clock
from hotstart.options import Options
from hotstart.records.artifact import CompiledUnit
from hotstart.specialize.piece_store import PieceStore
from hotstart.targets import TargetName

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
        workers: processes that compile beside this one, if there may be any.
        target: what the compiler compiles for.

    Attributes:
        compiler: as given.
        clock: as given.
    """

    def __init__(
        self,
        compiler: Compiler,
        clock: Clock,
        kept: PieceStore | None = None,
        workers: WorkerPool | None = None,
        target: TargetName = "native",
    ) -> None:
        self.compiler = compiler
        self.clock = clock
        self._target = target
        self._kept = kept
        self._workers: WorkerPool = workers or Workers(Options(), 0)
        self._made: defaultdict[str, list[MadeUnit]] = defaultdict(list)  # by kind of their jobs
        self._not_made: set[str] = set()  # keys of jobs
        self._looked_up: dict[str, CompiledUnit | Narrowed | None] = {}  # by key

    def expect(self, group: str, jobs: Iterable[tuple[Job, Job]]) -> None:
        """Have workers begin with what units will have to be made for.

        Args:
            group: names what the jobs are for; jobs that were expected for it before are not
                expected any more.
            jobs: as `make` will be given them, in that order: each with the one to try first.
        """
        if not self._workers.takes_jobs or (self._kept is not None and self._kept.only_kept):
            return
        wanted: dict[str, Job] = {}
        for job, shared in jobs:
            tried = job if shared.key in self._not_made else shared
            alike = (other for other in wanted.values() if other.kind == tried.kind)
            served = self.serving(job) is not None or any(o.includes(tried) for o in alike)
            if not (served or self._look_up(tried) or self._look_up(job)):
                wanted[tried.key] = tried
        self._workers.expect(self._target, group, list(wanted.values()))

    def serving(self, job: Job) -> MadeUnit | None:
        """The unit that serves a job: the one that was made for it, else one that includes it."""
        made = self._made[job.kind]
        own = (each for each in made if each.job.key == job.key)
        return next(own, next((each for each in made if each.job.includes(job)), None))

    def make(self, job: Job, shared: Job, variant: str) -> MadeUnit | Narrowed:
        """Make a unit that serves a job, or return the condition that its compile assumed.

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
                return self._add(each, found, "loaded", self.clock.wall_s() - started)
            if found is not None:
                narrowed[each.key] = found
        seconds = 0.0
        if several:
            unit, seconds = self._for_all_parts(job, shared, narrowed.get(shared.key), variant)
            if unit is not None:
                return self._add(shared, unit, "compiled", seconds)
        own, more = (narrowed[job.key], 0.0) if job.key in narrowed else self._made_of(job, variant)
        if isinstance(own, Narrowed):
            return own
        return self._add(job, own, "compiled", seconds + more)

    def _from_cache(self, job: Job) -> CompiledUnit | Narrowed | None:
        """Get the result of an earlier build's compile of a job; None if it is not kept."""
        found = self._look_up(job)
        if isinstance(found, Narrowed):
            self._not_made.add(job.key)
        return found

    def _look_up(self, job: Job) -> CompiledUnit | Narrowed | None:
        """Read the result of an earlier compile; each is read once."""
        kept = self._kept_of(job)
        if kept is None:
            return None
        if job.key not in self._looked_up:
            self._looked_up[job.key] = kept.get(job)
        return self._looked_up[job.key]

    def _for_all_parts(
        self, job: Job, shared: Job, narrowed: Narrowed | None, variant: str
    ) -> tuple[CompiledUnit | None, float]:
        """Compile the shared job; None if that fails, or assumes something of sizes.

        Args:
            job: the job that the unit is for.
            shared: the job for other parts as well.
            narrowed: the condition that its compile in an earlier build assumed, if known.
            variant: the name of what it is for.

        Returns:
            The unit, and the seconds that compiling took, whether there is one or not.
        """
        try:
            found, seconds = (narrowed, 0.0) if narrowed else self._made_of(shared, variant)
        except CompileError as error:
            log.debug("%s is compiled for each part of a range: %r", job.piece.name, error)
            return None, 0.0
        if isinstance(found, CompiledUnit):
            return found, seconds
        log.debug("%s is compiled for each part of a range: %s", job.piece.name, found)
        return None, seconds

    def _kept_of(self, job: Job) -> PieceStore | None:
        """The store of earlier builds; None where a job's key is not portable between processes."""
        return self._kept if job.piece.portable else None

    def _made_of(self, job: Job, variant: str) -> tuple[CompiledUnit | Narrowed, float]:
        """Compile a job here or in a worker; return the result and the seconds it took.

        Raises:
            CompileError: the job does not compile.
            StoreError: a store must have it, and has not.
        """
        if self._kept is not None:
            self._kept.permit(job)
        piece = job.piece
        trace_artifact(f"hotstart_compile_{piece.name}_{variant}", lambda: f"{job.key}\n{piece}\n")
        with self.clock.phase("compile"):
            found = self._workers.outcome(job, self._outcome) or self._outcome(job)
        if not isinstance(found.made, CompiledUnit):
            self._not_made.add(job.key)
        if found.made is None:
            raise CompileError(piece.name, piece.layers, variant, found.failed) from found.error
        kept = self._kept_of(job)
        if kept is not None:
            kept.put(job, found.made)
        return found.made, found.seconds

    def _outcome(self, job: Job) -> Outcome:
        """Compile a job in this process."""
        started = self.clock.wall_s()
        try:
            with self.clock.span(HERE, job.piece.name):
                made = self.compiler.compile(job)
        except Exception as error:  # noqa: BLE001  whatever compilers raise
            seconds = self.clock.wall_s() - started
            return Outcome(None, seconds, f"{type(error).__name__}: {error}", error)
        return Outcome(made, self.clock.wall_s() - started)

    def _add(
        self, job: Job, unit: CompiledUnit, action: Literal["compiled", "loaded"], seconds: float
    ) -> MadeUnit:
        made = MadeUnit(job, unit, action, seconds)
        self._made[job.kind].append(made)
        return made
