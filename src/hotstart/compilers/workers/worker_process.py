"""A worker as the process that builds sees it: started, asked, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hotstart.compilers.workers.pipes import NoAnswer, PipeEnded, receive, send

_START_LIMIT_S = 120.0
"""Seconds in which a worker has to import torch."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from hotstart.compilers.workers.worker import main; main(int(sys.argv[2]))"
)
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads of a proof must not spin where others compile
    "KMP_BLOCKTIME": "0",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no pool of processes at import; a build sets its own
}
"""Variables that a process which compiles for another one has when it imports torch."""


class WorkerEnded(Exception):
    """A worker ended, or was ended since it hung; the message says how."""


class Worker:
    """A process that compiles, on its own: not a fork, and not of the script that builds.

    It leads a group of processes, so what it has started is ended with it, and a Ctrl-C reaches the
    build alone.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
            process_group=0,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._errands = self._process.stdin.fileno()
        self._answers = self._process.stdout.fileno()

    @property
    def pid(self) -> int:
        """Its number, and that of its group."""
        return self._process.pid

    def peak_bytes(self) -> int:
        """The most memory that it has held; 0 if it is gone."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    def wait_until_ready(self) -> None:
        """Wait until it can compile.

        Raises:
            WorkerEnded: it never can.
        """
        self._received(_START_LIMIT_S)

    def answer(self, errand: bytes, limit_s: float) -> bytes:
        """Let it run an errand.

        Raises:
            WorkerEnded: it ended, or took more than `limit_s` seconds and was ended.
        """
        with contextlib.suppress(PipeEnded):  # what it ended by is found out below
            send(self._errands, errand)
        return self._received(limit_s)

    def _received(self, limit_s: float) -> bytes:
        try:
            return receive(self._answers, limit_s)
        except NoAnswer:
            self.end()
            raise WorkerEnded(f"did not end within {limit_s:g} s") from None
        except PipeEnded:
            self.end()
            raise WorkerEnded(f"ended {_how(self._process.returncode)}") from None

    def end(self) -> None:
        """End it and all that it has started."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it, and close the pipes; nobody may be reading."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _how(status: int) -> str:
    """Say how a process ended, by what `Popen.returncode` has."""
    if status >= 0:
        return f"with status {status}"
    try:
        return f"by {signal.Signals(-status).name}"
    except ValueError:
        return f"by signal {-status}"
