"""Compile in one thread of a process at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager


def compile_lock() -> AbstractContextManager[object]:
    """Return the lock that torch holds while compiling; a build holds it from trace to last unit.

    A build patches functions of torch meanwhile. Two threads could restore them in the wrong order:
    a trace would miss reads that it should record, and patches would stay for good. With a lock of
    our own, a build in one thread and `torch.compile(backend="hotstart")` in another could
    deadlock. `convert_frame.compile_lock` (2.11 to 2.15) is reentrant.
    """
    from torch._dynamo import convert_frame

    return convert_frame.compile_lock
