"""What tensors of subclasses are besides their inner tensors."""

from __future__ import annotations

import pytest
import torch

from hotstart.guards.objects import Unknowable
from hotstart.guards.wrapping import wrapping_changes, wrapping_of
from tests.integration.wrapped import Doubled, Scaled, scaled

SCALED = "tests.integration.wrapped.Scaled"


def test_class_layout_names_and_context_are_told_part_by_part() -> None:
    assert wrapping_of(scaled(2, 3)) == (
        ("type()", SCALED),
        ("", "torch.float32 [2, 3] strides [3, 1]"),
        ("inner tensors of", "values, scale"),
        ("context", "builtins.dict of 1"),
        ("context['share']", "1.0"),
    )


def test_what_is_inside_of_a_subclass_is_told_too() -> None:
    names = [name for name, _ in wrapping_of(Doubled(scaled(2, 3)))]
    assert names[4:] == [
        "type(half)", "half", "inner tensors of half", "half context", "half context['share']",
    ]  # fmt: skip


def test_contents_do_not_count() -> None:
    assert wrapping_of(scaled(2, 3)) == wrapping_of(scaled(2, 3))


@pytest.mark.parametrize("share", [1, 0.5, True, "1.0", [1.0]])
def test_contexts_that_differ_are_told_apart(share: object) -> None:
    assert wrapping_of(scaled(2, 3)) != wrapping_of(scaled(2, 3, share))


def test_a_context_with_a_tensor_cannot_be_compared() -> None:
    held = scaled(2, 3, [torch.tensor(1.0)])
    with pytest.raises(Unknowable, match="a tensor is in it"):
        wrapping_of(held)
    assert wrapping_changes("w", wrapping_of(scaled(2, 3)), held) == [
        ("w", f"a {SCALED} of torch.float32 [2, 3] strides [3, 1]", "a tensor is in it")
    ]


def test_changes_name_the_part() -> None:
    expected = wrapping_of(scaled(2, 3))
    assert wrapping_changes("w", expected, scaled(2, 3)) == []
    assert wrapping_changes("w", expected, scaled(2, 3, 2.0)) == [
        ("w: context['share']", "1.0", "2.0")
    ]
    whole = f"a {SCALED} of torch.float32 [2, 3] strides [3, 1]"
    assert wrapping_changes("w", expected, None) == [("w", whole, "nothing")]
    assert wrapping_changes("w", expected, torch.ones(2, 3)) == [("w", whole, "torch.Tensor")]
    other = Doubled(torch.ones(2, 3))
    assert wrapping_changes("w", expected, other) == [
        ("w", whole, "a tests.integration.wrapped.Doubled")
    ]
    turned = Scaled(torch.ones(3, 2, dtype=torch.int8).t(), torch.ones(2, 1))
    assert [name for name, *_ in wrapping_changes("w", expected, turned)] == ["w"]
