"""A process that compiles pieces for a build: errands come on standard input, answers go back.

It ends with the build. Where that was killed, the pipe from it ends; a thread waits for that, and
ends this process together with the C++ compilers that it has started.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
from typing import NoReturn

from hotstart.compilers.workers.pipes import PipeEnded, has_more, receive, send

READY = b"ready"
"""The first message of a worker, once it has imported all that it needs."""

_COLLECTED = (200_000, 20, 100)
"""Thresholds of garbage collection: most of what is imported stays, and is looked at each time."""

_LOOK_S = 1.0
"""Seconds between looks whether the build is there: another process may hold the pipe open."""


def main(parent: int) -> NoReturn:
    """Compile until there is nobody to compile for.

    Args:
        parent: number of the process that builds.
    """
    gc.set_threshold(*_COLLECTED)
    errands, answers = _pipes()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(errands, waiting, parent), daemon=True).start()
    # What takes seconds comes after the thread that ends it all.
    from hotstart._torch.processes.own_process import import_inductor, write_whole_files
    from hotstart.compilers.workers.errand import run

    import_inductor()
    write_whole_files()
    send(answers, READY)
    while True:
        send(answers, run(waiting.get()))


def _pipes() -> tuple[int, int]:
    """Take the pipes away from where anything that is run here might read or print."""
    errands, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return errands, answers


def _read(errands: int, waiting: queue.SimpleQueue[bytes], parent: int) -> None:
    try:
        while True:
            while not has_more(errands, _LOOK_S):
                if os.getppid() != parent:
                    return
            waiting.put(receive(errands))
    except PipeEnded:
        return
    finally:
        os.killpg(0, signal.SIGKILL)  # this process leads its group
