"""Children of this process that do one thing and end. Imports no torch."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any


def fork(work: Callable[[], object]) -> int:
    """A child that works, and ends with status 0, or with 1 after it said what went wrong."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001  whatever it is, it must not run on as the parent
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def wait(children: Iterable[int]) -> list[int]:
    """Wait for children to end; the statuses they ended with, negative for a signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def answers(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each of several works returns, all of them done at once, each in a child.

    What is returned has to be possible as JSON. None stands for a child that gave no answer.
    """
    asked = [_asked(work) for work in works]
    told = []
    for _, reading in asked:
        with os.fdopen(reading) as pipe:
            told.append(pipe.read())
    wait(child for child, _ in asked)
    return [json.loads(text) if text else None for text in told]


def answer(work: Callable[[], Any]) -> Any:
    """What a work returns that is done in a child."""
    return answers([work])[0]


def _asked(work: Callable[[], Any]) -> tuple[int, int]:
    reading, writing = os.pipe()

    def tell() -> None:
        with os.fdopen(writing, "w") as pipe:
            pipe.write(json.dumps(work()))

    child = fork(tell)
    os.close(writing)
    return child, reading
