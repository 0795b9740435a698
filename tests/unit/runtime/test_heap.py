"""Memory that calls free stays with the process, unless somebody has chosen otherwise."""

from __future__ import annotations

import resource
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import Options
from hotstart.runtime.heap import _is_set

PAGE = resource.getpagesize()


def large(x: Tensor) -> Tensor:
    for _ in range(4):
        x = x.sin() + x.cos()
    return x.sum()


def test_a_call_runs_in_the_memory_of_the_call_before() -> None:
    x = torch.randn(1 << 21)
    program = hotstart.compile(large, (x,), options=Options(compiler="op_by_op"))
    for _ in range(2):
        program(x)
    # Other threads of the process may take some of that memory between two calls.
    assert min(faults_of(lambda: program(x)) for _ in range(5)) * PAGE < x.numel() * x.itemsize


def faults_of(call: Callable[[], object]) -> int:
    """How many pages a call is the first to touch."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    call()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.parametrize(
    ("environment", "is_set"),
    [
        ({}, False),
        ({"MALLOC_ARENA_MAX": "2"}, False),
        ({"MALLOC_TRIM_THRESHOLD_": "131072"}, True),
        ({"MALLOC_MMAP_THRESHOLD_": "131072"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, False),
    ],
)
def test_what_the_environment_chooses_stays(environment: dict[str, str], is_set: bool) -> None:
    assert _is_set(environment) is is_set
