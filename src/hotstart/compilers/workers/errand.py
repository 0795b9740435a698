"""Compile a job in another process: the job goes as bytes, the unit comes back as bytes.

`run(errand_data(job, options, state))` gives the same unit as the compiler of those options gives
in the process that has written the job, wherever `run` runs.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hotstart._torch.processes.process_state import ProcessState, grad_modes, set_process_state
from hotstart._torch.structured_trace import trace_artifact
from hotstart.compilers.choose import make_compiler
from hotstart.compilers.job import Job, Narrowed
from hotstart.compilers.workers.job_data import NotData, job_data
from hotstart.compilers.workers.job_read import job_of
from hotstart.events import Clock
from hotstart.options import Options
from hotstart.records.artifact import CompiledUnit

_LOGGER = "hotstart"


@dataclass(frozen=True)
class Errand:
    """A job as another process needs it to compile.

    Attributes:
        job: as `job_data` writes it.
        options: make the compiler.
        state: of the process that the unit is for.
        log_level: of messages to be sent back.
    """

    job: bytes
    options: Options
    state: ProcessState
    log_level: int


@dataclass(frozen=True)
class Answer:
    """Result of an errand.

    Attributes:
        made: what the compiler made; None if it made nothing.
        refused: why that process would compile the job differently; empty if it would not.
        failed: the error that compiling raised, as text; empty if there was none.
        told: the traceback of that error.
        seconds: how long compiling took, proofs included.
        logged: logger, level and text of messages.
        warned: category, text, file, line and module of warnings.
        peak_bytes: the most memory that the process has held so far.
        compiler_bytes: the most memory that a process it has started has held, a C++ compiler say.
    """

    made: CompiledUnit | Narrowed | None = None
    refused: str = ""
    failed: str = ""
    told: str = ""
    seconds: float = 0.0
    logged: tuple[tuple[str, int, str], ...] = ()
    warned: tuple[tuple[type[Warning], str, str, int, str | None], ...] = ()
    peak_bytes: int = 0
    compiler_bytes: int = 0

    def repeat(self) -> None:
        """Repeat the log messages and warnings of the other process here.

        Raises:
            Warning: it is an error here.
        """
        for name, level, text in self.logged:
            logging.getLogger(name).log(level, "%s", text)
        for category, text, file, line, module in self.warned:
            told = vars(sys.modules[module]) if module in sys.modules else {}
            seen = told.setdefault("__warningregistry__", {})  # as `warnings.warn` does
            warnings.warn_explicit(text, category, file, line, module, seen)


def errand_data(job: Job, options: Options, state: ProcessState) -> bytes:
    """Write an errand as bytes.

    Raises:
        NotData: the job, or a setting, cannot be written as data.
    """
    plain = replace(options, on_event=None, debug_dir=None)
    level = logging.getLogger(_LOGGER).getEffectiveLevel()
    data = job_data(job)
    try:
        return pickle.dumps(Errand(data, plain, state, level))
    except Exception as error:
        raise NotData(f"{type(error).__name__}: {error}") from error


def run(data: bytes) -> bytes:
    """Compile the job of an errand; return the answer as bytes. Never raises."""
    try:
        answer = _answer(pickle.loads(data))  # noqa: S301  of the process that has started this one
    except Exception as error:  # noqa: BLE001  such as a class that this process does not have
        answer = Answer(refused=f"{type(error).__name__}: {error}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    answer = replace(answer, peak_bytes=own, compiler_bytes=started)
    try:
        return pickle.dumps(answer)
    except Exception as error:  # noqa: BLE001  it refers to what only this process has
        return refusal(f"{type(error).__name__}: {error}")


def refusal(reason: str) -> bytes:
    """Write the answer of a process that would compile a job differently."""
    return pickle.dumps(Answer(refused=reason))


def answer_of(data: bytes) -> Answer:
    """Read what `run` gave; in the process that has started the one that ran it."""
    answer: Answer = pickle.loads(data)  # noqa: S301  of a process that this one has started
    return answer


def _answer(errand: Errand) -> Answer:
    if different := set_process_state(errand.state):
        return Answer(refused=f"{', '.join(different)}: set otherwise in the worker")
    (target,) = errand.options.targets
    compiler = make_compiler(errand.options, target, Clock())
    job = job_of(errand.job, compiler.token())
    trace_artifact(
        f"hotstart_compile_{job.piece.name}_in_worker", lambda: f"{job.key}\n{job.piece}\n"
    )
    with overheard(errand.log_level) as heard:
        started = time.perf_counter()
        try:
            with grad_modes(errand.state):
                answer = Answer(made=compiler.compile(job))
        except Exception as error:  # noqa: BLE001  whatever compilers raise
            answer = Answer(failed=f"{type(error).__name__}: {error}", told=traceback.format_exc())
        seconds = time.perf_counter() - started
    files = {getattr(module, "__file__", None): name for name, module in sys.modules.items()}
    warned = tuple(
        (w.category, str(w.message), w.filename, w.lineno, files.get(w.filename))
        for w in heard.warned
    )
    return replace(answer, seconds=seconds, logged=tuple(heard.logged), warned=warned)


class Overheard(logging.Handler):
    """Log records and warnings of a compile."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[str, int, str]] = []
        self.warned: list[warnings.WarningMessage] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message as text."""
        self.logged.append((record.name, record.levelno, record.getMessage()))


@contextlib.contextmanager
def overheard(level: int) -> Iterator[Overheard]:
    """Collect what hotstart logs, and what is warned of."""
    logger, heard = logging.getLogger(_LOGGER), Overheard()
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(heard)
    try:
        with warnings.catch_warnings(record=True) as heard.warned:
            warnings.simplefilter("always")
            yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(before[0])
        logger.propagate = before[1]
