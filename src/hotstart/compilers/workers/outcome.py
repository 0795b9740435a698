"""Define what comes of compiling a job in another process, and who compiles jobs for a build."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hotstart.compilers.job import Job, Narrowed
from hotstart.compilers.workers.errand import Answer
from hotstart.model import Model, modules
from hotstart.records.artifact import CompiledUnit
from hotstart.records.report import WorkerReport
from hotstart.targets import TargetName

PIECE_LIMIT_S = 1800.0
"""Seconds that one piece may take; a compile that takes longer hangs."""

MANY_MODULES = 16
"""A model with as many modules is expected to have several different pieces."""

EARLY = 2
"""Workers to start before it is known how many jobs there are."""


class RaisedInWorker(Exception):
    """An error that compiling raised in a worker; the message is its traceback there."""


@dataclass(frozen=True)
class Outcome:
    """The result of compiling a job, here or in a worker.

    Attributes:
        made: what the compiler made; None if it raised an error.
        seconds: how long that took.
        failed: the error as text.
        error: the error.
    """

    made: CompiledUnit | Narrowed | None
    seconds: float
    failed: str = ""
    error: Exception | None = None


def outcome_of(answer: Answer) -> Outcome:
    """Take a worker's answer that is no refusal: log and warn here, and say what came of it."""
    try:
        answer.repeat()
    except Warning as warning:
        return Outcome(None, answer.seconds, f"{type(warning).__name__}: {warning}", warning)
    if answer.failed:
        return Outcome(None, answer.seconds, answer.failed, RaisedInWorker(answer.told))
    return Outcome(answer.made, answer.seconds)


def expects_several_pieces(model: Model) -> bool:
    """Tell whether a model is so large that workers will have something to do."""
    return len(list(itertools.islice(modules(model), MANY_MODULES))) == MANY_MODULES


class WorkerPool(Protocol):
    """Compiles the jobs of a build beside the process that builds."""

    @property
    def takes_jobs(self) -> bool:
        """Tell whether jobs may be handed in."""
        ...

    def start_early(self, model: Model) -> None:
        """Start before there are jobs, if the model is so large that there will be several."""
        ...

    def expect(self, target: TargetName, group: str, jobs: Sequence[Job]) -> None:
        """Hand in jobs that will be asked for, in this order, in place of those of a group before.

        Jobs that are no data are left out: whoever asks for them is told so.

        Args:
            target: what they are to be compiled for.
            group: names what they are for, among the jobs of the target.
            jobs: as `outcome` will be given them; none: no more of the group will be asked for.
        """
        ...

    def outcome(self, job: Job, compile_here: Callable[[Job], Outcome]) -> Outcome | None:
        """Wait for what came of a job; `compile_here` may be given others of its target meanwhile.

        Returns:
            None if no worker compiles it: it is to be compiled here.
        """
        ...

    def totals(self) -> WorkerReport:
        """Add up what the workers have used so far."""
        ...

    def close(self) -> None:
        """End all that was started, whatever it is doing."""
        ...
