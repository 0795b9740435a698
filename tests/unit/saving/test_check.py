"""What two processes returned is compared bit by bit, else within a tolerance."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor

from hotstart.errors import ArtifactError
from hotstart.model import contents
from hotstart.saving.check import Checked, Comparison


def compared(here: Tensor, there: Tensor) -> Checked:
    comparison = Comparison(io.BytesIO(contents(there) or b""))
    comparison.note("unit", here)
    return comparison.finished()


X = torch.tensor([1.0, float("nan"), -0.0])


def test_equal_tensors_are_exact_whatever_their_layout() -> None:
    assert compared(X, X.clone()) == Checked(tensors=1, exact=True, max_error=0.0)
    turned = torch.arange(6.0).view(2, 3).t()
    assert compared(turned, turned.contiguous()).exact


def test_a_small_difference_is_recorded() -> None:
    found = compared(X, X + 1e-6)
    assert not found.exact
    assert 0 < found.max_error < 1e-5


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (X, X + 1e-2), (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([True]), torch.tensor([False])), (X, X[:2]), (X[:2], X),
    ],
    ids=["another value", "another integer", "another truth", "too little", "too much"],
)  # fmt: skip
def test_anything_else_is_an_error(here: Tensor, there: Tensor) -> None:
    with pytest.raises(ArtifactError):
        compared(here, there)
