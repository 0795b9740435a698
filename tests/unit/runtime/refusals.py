"""What tests of refused calls share."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import hotstart
from hotstart import ContractError

EAGER = hotstart.Options(compiler="op_by_op")


@dataclasses.dataclass
class Batch:
    ids: torch.Tensor
    flag: bool = True


def assert_consistent(program: hotstart.Program, call: dict[str, Any]) -> None:
    (entry,) = program._entries.values()
    refused = object()
    function = entry.function(lambda values, excess, unknown: refused)
    reason = entry.refusal_of((), call)
    assert program.takes(**call) == (reason is None)
    if reason is None:
        assert function(**call) is not refused
        return
    assert function(**call) is refused
    with pytest.raises(ContractError) as caught:
        program(**call)
    assert str(caught.value) == str(reason)
