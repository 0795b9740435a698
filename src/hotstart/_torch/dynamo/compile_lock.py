"""Compile in one thread of a process at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager


def compile_lock() -> AbstractContextManager[object]:
    """The lock that torch holds while it compiles, and a build from trace to last unit.

    Much of torch's is replaced in between. Two threads would put it back in the wrong order, so
    that a trace in one missed what it was to record, and something stayed replaced for good. With a
    lock of our own, a build in one thread and `torch.compile(backend="hotstart")` in another would
    wait for each other. `convert_frame.compile_lock` (2.11 to 2.15) may be taken again by whoever
    has it.
    """
    from torch._dynamo import convert_frame

    return convert_frame.compile_lock
