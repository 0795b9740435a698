"""Collectives without other processes, and code that asks for ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hotstart._torch.processes.collectives import (
    asks_for_rank,
    asks_for_world_size,
    without_other_processes,
)

OPS = torch.ops._c10d_functional
X = torch.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: OPS.all_reduce(X, "sum", "none"), X),
        (lambda: OPS.broadcast(X, 1, "none"), X),
        (lambda: OPS.all_gather_into_tensor(X, 2, "none"), torch.cat([X, X])),
        (lambda: OPS.reduce_scatter_tensor(X, "sum", 2, "none"), X[:2]),
        (lambda: OPS.all_to_all_single(X, [3, 2], [2, 2], "none"), torch.cat([X, X[:1]])),
        (lambda: OPS.all_reduce_coalesced([X, X + 1], "sum", "none")[1], X + 1),
        (lambda: OPS.all_gather_into_tensor_coalesced([X], 2, "none")[0], torch.cat([X, X])),
    ],
)
def test_collectives_have_their_shapes_without_other_processes(
    call: Callable[[], torch.Tensor], expected: torch.Tensor
) -> None:
    with without_other_processes():
        made = call()
        waited = OPS.wait_tensor(made)
    assert torch.equal(waited, expected)
    assert made.data_ptr() != X.data_ptr()


def test_collectives_without_a_stand_in_do_not_run() -> None:
    with without_other_processes(), pytest.raises(NotImplementedError, match="all_reduce_ "):
        OPS.all_reduce_(X, "sum", "none")


@pytest.mark.parametrize(
    ("asks", "code"),
    [
        (True, lambda m: torch.distributed.get_rank()),
        (True, lambda m: m.group.rank()),
        (True, lambda m: m.tp_rank + 1),
        (True, lambda m: getattr(m, "rank")),  # noqa: B009
        (True, lambda m: m.mesh.get_coordinate()[0]),
        (True, lambda m: int(os.environ["LOCAL_RANK"])),
        (True, lambda m: m.tpRank + 1),
        (False, lambda m: m.ranking + m.franks),
        (False, lambda m: m.q_lora_rank + torch.linalg.matrix_rank(m.weight)),
        (False, lambda m: m.weight.size(0)),
    ],
)
def test_names_tell_whether_code_asks_for_its_rank(asks: bool, code: Any) -> None:
    assert asks_for_rank([code.__code__], []) == asks


def test_functions_tell_whether_code_asks_by_another_name() -> None:
    assert asks_for_rank([], [torch.distributed.get_rank])
    assert asks_for_world_size([], [torch.distributed.get_world_size])
    assert not asks_for_rank([], [torch.relu, torch.distributed.get_world_size])
