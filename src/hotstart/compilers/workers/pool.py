"""Compile jobs in worker processes, beside the process that builds."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hotstart._torch.processes.process_state import process_state
from hotstart.compilers.job import Job
from hotstart.compilers.machine import default_jobs
from hotstart.compilers.workers.errand import answer_of, errand_data
from hotstart.compilers.workers.job_data import NotData
from hotstart.compilers.workers.outcome import (
    EARLY,
    PIECE_LIMIT_S,
    Outcome,
    WorkerPool,
    expects_several_pieces,
    outcome_of,
)
from hotstart.compilers.workers.ray_workers import RayWorkers
from hotstart.compilers.workers.worker_process import Worker, WorkerEnded
from hotstart.events import Clock
from hotstart.model import Model
from hotstart.options import Options
from hotstart.records.report import WorkerReport
from hotstart.targets import TargetName

log = logging.getLogger(__name__)


@dataclass
class _Task:
    """A job that was handed in.

    Attributes:
        job: the job.
        target: what it is to be compiled for.
        group: jobs that are handed in together replace those of the group before.
        errand: the job as bytes.
        state: whether a worker has it, or has had it.
        answer: what the worker gave, as bytes; None if it ended.
        ended: how the worker ended.
        outcome: what came of it, where this process has compiled it.
    """

    job: Job
    target: TargetName
    group: str
    errand: bytes
    state: Literal["waits", "runs", "done"] = "waits"
    answer: bytes | None = None
    ended: str = ""
    outcome: Outcome | None = None


def workers_of(options: Options, clock: Clock | None = None) -> WorkerPool:
    """Make the workers of a build, if it is to have any; none is started before there are jobs.

    There are none for builds that measure, since measurements must run alone, and for builds that
    prove the first unit of every piece only, since the order of compiles decides which one that is.
    The clock is told the spans of each worker.

    Raises:
        OptionsError: they are to be Ray's, which is not installed.
    """
    alone = options.compiler != "inductor" or options.tune or options.prove == "first"
    if options.jobs == "ray":
        return Workers(options, 0) if alone else RayWorkers(options)
    if not sys.executable:  # Python is part of another program
        alone = True
    jobs = 1 if alone else options.jobs or default_jobs()
    return Workers(options, jobs - 1, clock=clock)


class Workers:
    """The worker processes of a build, and the jobs that wait for them.

    A thread for each process hands it one job after the other. The process that builds asks for the
    outcomes in a fixed order, so the result of a build does not depend on timing. It compiles jobs
    itself that no worker has begun.

    Args:
        options: of the build.
        most: how many processes there may be; 0: this process compiles everything.
        limit_s: seconds that a job may take.
        clock: is told what each process did when.

    Attributes:
        most: as given.
    """

    def __init__(
        self,
        options: Options,
        most: int,
        limit_s: float = PIECE_LIMIT_S,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self.most = most
        self._limit_s = limit_s
        self._clock = clock or Clock()
        self._changed = threading.Condition()
        self._tasks: dict[str, _Task] = {}  # by key
        self._alone = False  # whether no job may be begun, since one has to run by itself
        self._closed = False
        self._workers: list[Worker] = []
        self._threads: list[threading.Thread] = []
        self._peaks: dict[int, int] = {}  # by process
        self._compiler_bytes = 0
        self._seconds = 0.0

    @property
    def takes_jobs(self) -> bool:
        """Tell whether jobs may be handed in."""
        return self.most > 0

    # --- jobs ---------------------------------------------------------------------------------

    def expect(self, target: TargetName, group: str, jobs: Sequence[Job]) -> None:
        """Hand in jobs that will be asked for, in this order, in place of those of a group before.

        Jobs that are no data are left out: whoever asks for them is told so.
        """
        wanted = {job.key: job for job in jobs}
        with self._changed:
            for key, task in list(self._tasks.items()):
                of_group = task.target == target and task.group == group
                if of_group and task.state == "waits" and key not in wanted:
                    del self._tasks[key]
        if not self.most or len(wanted) < 2:
            return  # this process has more C++ compilers at a time
        state = process_state()
        if state is None:
            return
        processes = min(self.most, max(len(self._workers), len(wanted) - 1)) + 1
        each = max(1, (self.most + 1) // processes)
        options = replace(self._options, jobs=each, target=target)
        for key, job in wanted.items():
            if key in self._tasks:
                continue
            try:
                task = _Task(job, target, group, errand_data(job, options, state))
            except NotData as reason:
                log.debug("%s is compiled in the process that builds: %s", job.piece.name, reason)
                continue
            with self._changed:
                self._tasks[key] = task
                self._changed.notify_all()
        self.start(sum(task.state == "waits" for task in self._tasks.values()) - 1)

    def outcome(self, job: Job, compile_here: Callable[[Job], Outcome]) -> Outcome | None:
        """Wait for the outcome of a job; compile other jobs here while a worker has this one.

        Returns:
            None if no worker has begun it, or none can compile it: it is to be compiled here.
        """
        while True:
            with self._changed:
                task = self._tasks.get(job.key)
                if task is None or task.state == "waits":
                    self._tasks.pop(job.key, None)
                    return None
                other = self._next(task.target) if task.state == "runs" else None
                if other is None and task.state == "runs":
                    self._changed.wait()
                    continue
                if other is None:
                    del self._tasks[job.key]
            if other is None:
                return self._outcome(task)
            other.outcome = compile_here(other.job)
            self._done(other)

    def _outcome(self, task: _Task) -> Outcome | None:
        if task.outcome is not None:
            return task.outcome
        if task.answer is None:
            log.warning(
                "the worker that compiled %s %s; it is compiled once more, with nothing beside it",
                task.job.piece.name,
                task.ended,
            )
            self._run_alone(task)
        if task.answer is None:
            reason = f"its process {task.ended}, twice; Options(jobs=1) compiles in this one"
            return Outcome(None, 0.0, reason)
        answer = answer_of(task.answer)
        if answer.refused:
            log.debug("no worker compiles %s: %s", task.job.piece.name, answer.refused)
            return None
        self._compiler_bytes = max(self._compiler_bytes, answer.compiler_bytes)
        self._seconds += answer.seconds
        return outcome_of(answer)

    def _next(self, target: TargetName | None = None) -> _Task | None:
        """Begin the next job, for a target if it is given, in the order they will be asked for."""
        waiting = (t for t in self._tasks.values() if t.state == "waits")
        task = next((t for t in waiting if target in (None, t.target)), None)
        if task is not None:
            task.state = "runs"
        return task

    def _done(self, task: _Task) -> None:
        with self._changed:
            task.state = "done"
            self._changed.notify_all()

    def _run_alone(self, task: _Task) -> None:
        """Run a job in a new worker while no other one has anything to do."""
        with self._changed:
            self._alone = True
            self._changed.wait_for(lambda: all(t.state != "runs" for t in self._tasks.values()))
        try:
            worker = Worker()
            self._workers.append(worker)
            worker.wait_until_ready()
            self._answer(worker, task)
        except (WorkerEnded, OSError) as ended:  # OSError: no process can be started
            task.ended = str(ended)
        else:
            self._serve_in_thread(worker)
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    # --- processes ----------------------------------------------------------------------------

    def start(self, count: int) -> None:
        """Start processes, up to a number and the limit; they import torch in the background."""
        while len(self._workers) < min(count, self.most):
            try:
                worker = Worker()
            except OSError as error:
                log.warning("no worker can be started: %s", error)
                self.most = len(self._workers)
                return
            self._workers.append(worker)
            self._serve_in_thread(worker)

    def start_early(self, model: Model) -> None:
        """Start before there are jobs, if the model is so large that there will be several.

        Importing torch takes as long as capturing a small model, and a core; a model of a few
        modules is one piece, and is built later if it shares two cores with a worker.
        """
        if expects_several_pieces(model):
            self.start(EARLY)

    def _serve_in_thread(self, worker: Worker) -> None:
        name = f"hotstart-worker-{worker.pid}"
        thread = threading.Thread(target=self._serve, args=(worker,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, worker: Worker) -> None:
        """Hand a worker one job after the other."""
        try:
            worker.wait_until_ready()
        except WorkerEnded as ended:
            if not self._closed:
                log.warning("a worker %s before it could compile", ended)
            return
        while (task := self._for_worker()) is not None:
            try:
                self._answer(worker, task)
            except Exception as ended:  # noqa: BLE001  nobody would see it in a thread
                task.ended = str(ended)
            self._done(task)
            if task.answer is None:
                return

    def _answer(self, worker: Worker, task: _Task) -> None:
        """Have a worker run a job.

        Raises:
            WorkerEnded: it did not answer.
        """
        with self._clock.span(f"worker {self._workers.index(worker) + 1}", task.job.piece.name):
            task.answer = worker.answer(task.errand, self._limit_s)

    def _for_worker(self) -> _Task | None:
        """Begin the next job, once there is one; None if there will be none."""
        with self._changed:
            while not self._closed:
                task = None if self._alone else self._next()
                if task is not None:
                    return task
                self._changed.wait()
        return None

    def totals(self) -> WorkerReport:
        """Add up what the workers have used so far, up to their end."""
        for worker in self._workers:
            self._peaks[worker.pid] = max(self._peaks.get(worker.pid, 0), worker.peak_bytes())
        count = len(self._workers)
        # This process runs as many C++ compilers at a time as there may be processes.
        compilers = (count + self.most + 1) * self._compiler_bytes if count else 0
        return WorkerReport(count, self._seconds, sum(self._peaks.values()) + compilers)

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        self.totals()
        with self._changed:
            self._closed = True
            self._tasks.clear()
            self._changed.notify_all()
        for worker in self._workers:
            worker.end()
        for thread in self._threads:
            thread.join()
        for worker in self._workers:
            worker.close()
