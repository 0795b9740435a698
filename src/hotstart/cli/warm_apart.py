"""Compile what a factory makes into a cache in a new process, which says what it does."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from hotstart.cli import parse
from hotstart.cli.factory import call_factory
from hotstart.cli.flags import Settings
from hotstart.cli.warming import Place, Row, compile_into, compiled_row, failed_row
from hotstart.errors import HotstartError
from hotstart.events import Event, Listener
from hotstart.options import Jobs


@dataclass(frozen=True)
class _Compiled:
    """The outcome of a factory in its process.

    Attributes:
        action: `"compiled"` or `"loaded"`.
        seconds: how long that took.
        key: of the program.
        error: why it failed; then there is no more.
    """

    action: str = ""
    seconds: float = 0.0
    key: str = ""
    error: str = ""


def warm_apart(
    factory: parse.Factory,
    settings: Settings,
    jobs: Jobs | None,
    place: Place,
    listener: Listener,
) -> Row:
    """Compile what one factory makes in a new process, and describe what came of it.

    Args:
        factory: the factory.
        settings: arguments of `hotstart.compile`, beside those of the factory.
        jobs: how many processes compile; None: as the options say.
        place: where the program is kept.
        listener: is told of progress, here.
    """
    started = time.perf_counter()
    fresh = multiprocessing.get_context("spawn")
    ours, theirs = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_compile, args=(theirs, factory, settings, jobs, place))
    try:
        process.start()
        theirs.close()  # so that reading ends when the process does
        made = _made(ours, listener)
    except BaseException:  # interrupted, maybe while it starts
        if process.pid is not None:
            process.terminate()
        raise
    finally:
        if process.pid is not None:
            process.join()
        ours.close()
    if made is None:
        return failed_row(factory, time.perf_counter() - started, _ended_by(process.exitcode))
    if made.error:
        return failed_row(factory, time.perf_counter() - started, made.error)
    return compiled_row(factory, made.action, made.seconds, made.key)


def _made(ours: Connection, listener: Listener) -> _Compiled | None:
    """Tell a listener what a process says, until it says what came of it; None if it ended."""
    try:
        while isinstance(said := ours.recv(), Event):
            listener(said)
    except EOFError:
        return None
    assert isinstance(said, _Compiled)
    return said


def _ended_by(status: int | None) -> str:
    if status is not None and status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"


# --- in the new process ---------------------------------------------------------------------------


def _compile(
    theirs: Connection,
    factory: parse.Factory,
    settings: Settings,
    jobs: Jobs | None,
    place: Place,
) -> None:
    """Compile what a factory makes, and say what is done and what came of it."""
    lock = threading.Lock()

    def say(event: Event) -> None:
        with lock:  # events may come from several threads
            theirs.send(event)

    try:
        model, from_factory = call_factory(factory)
        arguments = settings.beside(factory, from_factory)
        made = compile_into(factory, model, arguments, jobs, place, say)
        theirs.send(_Compiled(*made))
    except HotstartError as raised:
        theirs.send(_Compiled(error=str(raised)))
    except (Exception, SystemExit) as raised:  # noqa: BLE001  whatever a factory does
        theirs.send(_Compiled(error=f"{type(raised).__name__}: {raised}"))
