"""Compile jobs in the workers of a Ray cluster, for a build."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hotstart._torch.processes.own_process import import_inductor, write_whole_files
from hotstart._torch.processes.process_state import process_state
from hotstart.artifact.surroundings import (
    different,
    no_matter,
    set_for_compilers,
    surroundings,
)
from hotstart.compilers.job import Job
from hotstart.compilers.workers.errand import answer_of, errand_data, refusal, run
from hotstart.compilers.workers.job_data import NotData
from hotstart.compilers.workers.outcome import (
    EARLY,
    PIECE_LIMIT_S,
    Outcome,
    expects_several_pieces,
    outcome_of,
)
from hotstart.compilers.workers.ray_cluster import (
    Cluster,
    Done,
    NotRun,
    Task,
    WorkersLost,
    require_ray,
)
from hotstart.compilers.workers.worker_process import ENVIRONMENT
from hotstart.model import Model
from hotstart.options import Options
from hotstart.records.report import WorkerReport
from hotstart.targets import TargetName

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Handed:
    """A job that was handed in.

    Attributes:
        group: jobs of a target that are handed in together replace those of the group before.
        task: what Ray runs.
    """

    group: tuple[TargetName, str]
    task: Task


class RayWorkers:
    """The workers of a Ray cluster, and the jobs of a build that they have.

    Each job is a task of one core. Ray decides where and when it runs, and runs it again if its
    worker is lost. The process that builds asks for the outcomes in a fixed order, so the result of
    a build does not depend on timing. It compiles jobs itself that every worker refuses.

    Args:
        options: of the build.

    Raises:
        OptionsError: Ray is not installed.
    """

    takes_jobs = True

    def __init__(self, options: Options) -> None:
        require_ray()
        self._options = replace(options, jobs=1)  # in a worker, which has one core
        self._cluster: Cluster | None = None
        self._handed: dict[str, _Handed] = {}  # by key
        self._early: list[Task] = []
        self._refusals: set[str] = set()
        self._peaks: dict[str, int] = {}  # by worker
        self._compiler_bytes = 0
        self._seconds = 0.0

    def start_early(self, model: Model) -> None:
        """Connect; have workers import torch, if there will be several jobs.

        Raises:
            OptionsError: no cluster can be reached.
        """
        cluster = self._connected()
        if expects_several_pieces(model):
            self._early = [cluster.submit("import torch", prepare) for _ in range(EARLY)]

    def expect(self, target: TargetName, group: str, jobs: Sequence[Job]) -> None:
        """Hand in jobs that will be asked for, in this order, in place of those of a group before.

        Jobs that are no data are left out: whoever asks for them is told so.

        Raises:
            OptionsError: no cluster can be reached.
        """
        wanted = {job.key: job for job in jobs}
        before = [k for k, each in self._handed.items() if each.group == (target, group)]
        self._cancel(key for key in before if key not in wanted)
        if len(wanted) < 2:
            return  # this process has nothing else to do
        state = process_state()
        if state is None:
            return
        cluster, here = self._connected(), surroundings()
        options = replace(self._options, target=target)
        for key, job in wanted.items():
            if key in self._handed:
                continue
            try:
                errand = errand_data(job, options, state)
            except NotData as reason:
                log.debug("%s is compiled in the process that builds: %s", job.piece.name, reason)
                continue
            name, targets = job.piece.name, options.targets
            task = cluster.submit(name, compile_errand, here, targets, errand)
            self._handed[key] = _Handed((target, group), task)

    def outcome(self, job: Job, compile_here: Callable[[Job], Outcome]) -> Outcome | None:
        """Wait for what came of a job.

        Returns:
            None if no worker has it, or its worker would compile it differently.
        """
        handed = self._handed.get(job.key)
        if handed is None:
            return None
        name = job.piece.name
        found: Outcome | None = None
        try:
            found = self._answered(name, self._connected().result(handed.task))
        except WorkersLost as lost:
            reason = f"every Ray worker that compiled it was lost, the last one since: {lost}"
            found = Outcome(None, 0.0, f"{reason}; Options(jobs=1) compiles in this process")
        except NotRun as reason:
            self._refused(name, str(reason))
        del self._handed[job.key]  # not where this process is interrupted: that cancels it
        return found

    def _answered(self, name: str, done: Done) -> Outcome | None:
        if done.lost:
            several = "s were" if done.lost > 1 else " was"
            log.warning("%d Ray worker%s lost while compiling %s; Ray has run it once more, in %s",
                        done.lost, several, name, done.worker)  # fmt: skip
        answer = answer_of(done.value)
        if answer.refused:
            self._refused(name, f"{done.worker}: {answer.refused}")
            return None
        self._peaks[done.worker] = max(self._peaks.get(done.worker, 0), answer.peak_bytes)
        self._compiler_bytes = max(self._compiler_bytes, answer.compiler_bytes)
        self._seconds += answer.seconds
        return outcome_of(answer)

    def _refused(self, name: str, reason: str) -> None:
        """Warn of a reason once; it is that of other jobs, too."""
        level = logging.DEBUG if reason in self._refusals else logging.WARNING
        self._refusals.add(reason)
        log.log(level, "no Ray worker compiles %s, so this process does: %s", name, reason)

    def totals(self) -> WorkerReport:
        """Add up what the workers have used so far."""
        compilers = len(self._peaks) * self._compiler_bytes
        return WorkerReport(len(self._peaks), self._seconds, sum(self._peaks.values()) + compilers)

    def close(self) -> None:
        """Cancel what is left, and end the workers that run it."""
        self._cancel(list(self._handed))
        if self._cluster is not None:
            self._cluster.cancel(self._early)
        self._early = []

    def _connected(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster({**ENVIRONMENT, **set_for_compilers()})
        return self._cluster

    def _cancel(self, keys: Iterable[str]) -> None:
        tasks = [self._handed.pop(key).task for key in keys]
        if self._cluster is not None:
            self._cluster.cancel(tasks)


# --- in a worker ----------------------------------------------------------------------------------


@functools.cache
def prepare() -> None:
    """Import all that compiling needs, once in each worker, and be ready to be ended any time."""
    import_inductor()
    write_whole_files()


def compile_errand(
    expected: Mapping[str, str], targets: Sequence[TargetName], errand: bytes
) -> bytes:
    """Run an errand, if this worker would compile as the process that builds does.

    Args:
        expected: the surroundings of that process.
        targets: the one that the errand is for.
        errand: as `errand_data` writes it. Nothing is read of it if it is refused: its records may
            be those of another version.
    """
    prepare()
    differences = different(expected, surroundings(), no_matter(targets))
    if differences:
        return refusal("; ".join(differences))
    with _ended_after(PIECE_LIMIT_S):
        return run(errand)


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this worker if it takes longer: a compile that does hangs. Ray then runs it again."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
