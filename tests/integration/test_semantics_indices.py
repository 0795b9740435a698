"""Indices that are out of range: raised by compiled code, also where threads share a loop."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart

LENGTHS = {"ids": {0: hotstart.Dim("length", min=1, max=4096)}}


def refused(program: Any, *args: Any) -> str:
    with pytest.raises(IndexError) as raised:
        program(*args)
    return str(raised.value)


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 64)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids).relu()


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["python", "native"])
def test_a_wrong_index_is_raised_and_the_program_goes_on(form: Any) -> None:
    model = Table().eval()
    program = hotstart.compile(
        model,
        (torch.arange(64),),
        dynamic_shapes=LENGTHS,
        options=hotstart.Options(form=form),
    )
    for length in (1, 4096):  # the longer one is shared by all threads
        ids = torch.arange(length) % 100
        for wrong in (100, -1, 2**40):
            ids[-1] = wrong
            assert refused(program, ids) == "index out of range: a dimension has size 100"
        ids[-1] = 99
        assert torch.equal(program(ids), model(ids))


class FromZero(nn.Module):
    def forward(self, ids: Tensor, which: int) -> Tensor:
        table, rows = torch.ones(100, 8), torch.ones(ids.shape[0], 8)
        match which:
            case 0:
                return table.index_select(0, ids).sum()
            case 1:
                return table.index_add(0, ids, rows).sum()
        return table.index_copy(0, ids, rows).sum()


@pytest.mark.thorough
@pytest.mark.parametrize("which", [0, 1, 2], ids=["select", "add", "copy"])
def test_operators_that_take_no_negative_index_raise_it(which: int) -> None:
    model = FromZero().eval()
    program = hotstart.compile(model, (torch.arange(64), which), dynamic_shapes=LENGTHS)
    ids = torch.arange(80)
    assert torch.equal(program(ids, which), model(ids, which))
    for wrong in (-1, 100):
        ids[3] = wrong
        assert refused(program, ids, which) == "index out of range: a dimension has size 100"
        with pytest.raises((IndexError, RuntimeError)):
            model(ids, which)
