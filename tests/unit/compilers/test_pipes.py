"""Messages through pipes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pytest

from hotstart.compilers.workers.pipes import NoAnswer, PipeEnded, has_more, receive, send


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(end)


def test_a_message_of_any_length_arrives(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    messages = [b"", b"one", bytes(range(256)) * 4096]  # the last one is more than a pipe holds
    sender = threading.Thread(target=lambda: [send(writes, message) for message in messages])
    sender.start()
    assert [receive(reads) for _ in messages] == messages
    sender.join()


def test_an_end_in_the_middle_of_a_message_is_an_end(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.write(writes, (10).to_bytes(8, "little") + b"half")
    os.close(writes)
    with pytest.raises(PipeEnded):
        receive(reads)


def test_nothing_within_the_time_is_no_answer(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    with pytest.raises(NoAnswer):
        receive(reads, 0.01)
    os.write(writes, (10).to_bytes(8, "little") + b"half")
    with pytest.raises(NoAnswer):
        receive(reads, 0.01)


def test_there_is_more_once_something_came(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    assert not has_more(reads, 0.01)
    send(writes, b"")
    assert has_more(reads, 0.01)
    receive(reads)
    os.close(writes)
    assert has_more(reads, 0.01)  # the end


def test_nobody_reads(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.close(reads)
    with pytest.raises(PipeEnded):
        send(writes, b"lost")
