"""What the suites share: names to run, processes, and results that outlive an interruption."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

ROOT = Path(__file__).parents[1]


def require_known(wanted: Collection[str], known: Collection[str]) -> None:
    """Exit if `--only` names something that there is not."""
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        sys.exit(f"--only: there is no {', '.join(unknown)}; --list names what there is")


@contextlib.contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], log: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, so that what it started ends with it."""
    started = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def keep(file: Path, results: msgspec.Struct) -> None:
    """Replace a file of results, all at once: a run may be interrupted at any time."""
    new = file.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    new.replace(file)


def problem(error: BaseException) -> str:
    """An error in a line: its class, what it says first, and why."""
    said = str(error).strip().splitlines()
    line = f"{type(error).__name__}: {said[0].strip() if said else 'says nothing'}"
    # Where a model is not one graph, the reason is what tells one model from another.
    because = [part.strip() for part in said[1:] if part.strip().startswith("because:")]
    return " ".join([line, *because])


def tell(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def end(main: Callable[[], int]) -> NoReturn:
    """Run a suite and exit with its status; its processes end with it, whatever ends it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; --missing goes on from here")
