"""What two calls did is compared: results, inputs, weights, shared memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from qualification.compare import (
    Did,
    Inputs,
    Standard,
    Wrong,
    difference,
    largest_difference,
    observe,
    unchanged,
)


def did(call: Any, *args: Any) -> Did:
    return observe(call, nn.Module(), Inputs(args))


def differ(found: Any, expected: Any, **standard: Any) -> str | None:
    x = torch.tensor([1.0, 2.0])
    return difference(did(found, x), did(expected, x), Standard(**standard))


def test_a_call_does_not_differ_from_itself() -> None:
    assert differ(lambda x: (x.log(), x), lambda x: (x.log(), x)) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda x: x + 1e-7, lambda x: x + 2e-7),
        (lambda x: -(x * 0), lambda x: x * 0),
        (lambda x: x.double(), lambda x: x.float() + 0),
        (lambda x: x.view(1, 2), lambda x: x.view(2, 1)),
        (lambda x: (x,), lambda x: [x]),
        (lambda x: x.clone(), lambda x: x),
        (lambda x: x[:1], lambda x: x[:1].clone()),
        (lambda x: x.sum(), lambda x: x.add_(1).sub(1).sum()),
        (lambda x: nn.Parameter(x + 1), lambda x: x + 1),
    ],
    ids=["value", "zero", "dtype", "shape", "tree", "identity", "memory", "written", "class"],
)
def test_a_difference_is_told(found: Any, expected: Any) -> None:
    assert differ(found, expected)


def test_values_within_the_tolerance_are_equal_with_inductor() -> None:
    assert differ(lambda x: x + 2e-5, lambda x: x + 0, tolerance=None) is None
    assert differ(lambda x: x + 1e-3, lambda x: x + 0, tolerance=None)


def test_the_weights_are_as_before() -> None:
    module = nn.BatchNorm1d(2)
    with unchanged(module):
        observe(module, module, Inputs((torch.ones(3, 2),)))
    assert module.num_batches_tracked == 0


def test_tensors_that_share_memory_share_it_in_copies() -> None:
    x = torch.zeros(4)
    found = did(lambda a, b: b.add_(1), x, x[2:])
    assert found.inputs[0].tolist() == [0, 0, 1, 1]
    assert x.sum() == 0


def test_the_largest_difference_of_all_tensors() -> None:
    found = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    expected = {"a": torch.tensor([1.0, 2.5]), "b": torch.tensor([3.25])}

    assert largest_difference(found, expected) == 0.5


def test_values_that_are_nan_in_both_are_equal() -> None:
    both = torch.tensor([torch.nan, torch.inf])

    assert largest_difference(both, both.clone()) == 0


@pytest.mark.parametrize("other", [torch.nan, torch.inf])
def test_nan_or_infinity_in_one_is_an_infinite_difference(other: float) -> None:
    assert largest_difference(torch.tensor([other]), torch.tensor([1.0])) == torch.inf


def test_a_model_output_is_no_dict() -> None:
    with pytest.raises(Wrong, match="CausalLMOutput"):
        largest_difference({"logits": torch.ones(1)}, CausalLMOutput(logits=torch.ones(1)))


@pytest.mark.parametrize(
    "found",
    [
        torch.ones(3),
        torch.ones(2, dtype=torch.float64),
        (torch.ones(2),),
        torch.nn.Parameter(torch.ones(2)),
        1.0,
    ],
    ids=["shape", "dtype", "tree", "class", "number"],
)
def test_another_kind_of_result_is_wrong(found: object) -> None:
    with pytest.raises(Wrong):
        largest_difference(found, torch.ones(2))


def test_integers_have_to_be_equal() -> None:
    with pytest.raises(Wrong, match="differs in 1 of 2"):
        largest_difference(torch.tensor([1, 2]), torch.tensor([1, 3]))
