"""Which tensors are more than memory with strides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hotstart._torch.graphs.symbols import fake_mode
from hotstart.capture.plain import oddity


class Marked(torch.Tensor):
    pass


ODD = {
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "class": torch.ones(2).as_subclass(Marked),
    "layout": torch.eye(2).to_sparse(),
    "lazy": torch.ones(2, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("reason", ODD)
def test_what_a_program_cannot_read_is_told_with_the_reason(reason: str) -> None:
    assert oddity(ODD[reason]) == reason


def test_tensors_parameters_and_fake_tensors_are_plain() -> None:
    with fake_mode():
        fake = torch.empty(2, 3)
    for tensor in (torch.ones(4, 4).t()[1:], nn.Parameter(torch.ones(2)), fake):
        assert oddity(tensor) is None
