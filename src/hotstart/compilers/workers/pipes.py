"""Messages between a build and its worker processes: bytes with their length before them."""

from __future__ import annotations

import os
import select
import time

_HEAD = 8
_MOST = 1 << 16
"""Bytes to ask a pipe for at a time."""


class PipeEnded(Exception):
    """The process at the other end has closed it, or is gone."""


class NoAnswer(Exception):
    """The time for an answer is over."""


def send(pipe: int, message: bytes) -> None:
    """Write a message.

    Raises:
        PipeEnded: nobody reads any more.
    """
    left = memoryview(len(message).to_bytes(_HEAD, "little") + message)
    try:
        while left:
            left = left[os.write(pipe, left) :]
    except OSError as error:
        raise PipeEnded from error


def receive(pipe: int, limit_s: float | None = None) -> bytes:
    """Read a message.

    Args:
        pipe: a file descriptor.
        limit_s: seconds to wait for all of it; None: as long as it takes.

    Raises:
        PipeEnded: nobody writes any more.
        NoAnswer: the time is over.
    """
    until = None if limit_s is None else time.monotonic() + limit_s
    length = int.from_bytes(_exactly(pipe, _HEAD, until), "little")
    return _exactly(pipe, length, until)


def has_more(pipe: int, wait_s: float) -> bool:
    """Wait until there is something to read, or the end; False if the time is over before."""
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    return bool(ready.poll(1e3 * wait_s))


def _exactly(pipe: int, count: int, until: float | None) -> bytes:
    got = bytearray()
    while len(got) < count:
        if until is not None and not has_more(pipe, max(0.0, until - time.monotonic())):
            raise NoAnswer
        try:
            more = os.read(pipe, min(_MOST, count - len(got)))
        except OSError as error:
            raise PipeEnded from error
        if not more:
            raise PipeEnded
        got += more
    return bytes(got)
