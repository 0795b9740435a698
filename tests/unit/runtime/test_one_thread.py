"""Threads whose operators run in them alone."""

import threading

import torch

from hotstart._torch.running.native_code import libtorch_cpu
from hotstart.runtime.one_thread import run_in_one_thread


def test_operators_of_one_thread_run_in_it_and_those_of_others_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    seen: list[int] = []

    def counted() -> None:
        run_in_one_thread(libtorch_cpu())
        seen.append(torch.get_num_threads())

    try:
        for _ in range(2):
            thread = threading.Thread(target=counted)
            thread.start()
            thread.join()
        assert [*seen, torch.get_num_threads()] == [1, 1, 3]
    finally:
        torch.set_num_threads(before)
