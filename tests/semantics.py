"""What tests of semantics share: a program beside the model itself, call for call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import hotstart

both = pytest.mark.parametrize("compiler", ["op_by_op", "inductor"])
"""Runs a test with the pieces run op by op, and with what Inductor makes of them."""

mostly_eager = pytest.mark.parametrize(
    "compiler", ["op_by_op", pytest.param("inductor", marks=pytest.mark.slow)]
)
"""The same, where Inductor hardly matters: with Inductor only among the slow tests."""


def build(model: Any, *args: Any, compiler: str = "op_by_op", **settings: Any) -> hotstart.Program:
    """A program; `settings` go to `hotstart.compile`."""
    options = hotstart.Options(compiler=compiler)  # type: ignore[arg-type]
    return hotstart.compile(model, args, options=options, **settings)


def assert_same(found: Any, expected: Any, tolerance: float = 0.0) -> None:
    """The same structure, types, dtypes, shapes and values, within a tolerance."""
    found_leaves, found_spec = pytree.tree_flatten(found)
    expected_leaves, expected_spec = pytree.tree_flatten(expected)
    assert found_spec == expected_spec
    for left, right in zip(found_leaves, expected_leaves, strict=True):
        assert type(left) is type(right)
        if isinstance(right, Tensor):
            torch.testing.assert_close(
                left, right, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False
            )
        else:
            assert left == right


def check(
    model: Any,
    *calls: Sequence[Any],
    compiler: str = "op_by_op",
    tolerance: float = 0.0,
    reference: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> hotstart.Program:
    """Compile for the first call, make every call twice, and compare with the model itself.

    Results, what calls leave in their arguments, and the model's buffers are compared. The model is
    copied first, unless there is a `reference` to compare with.
    """
    if reference is None:
        reference = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    named = dict(kwargs or {})
    program = build(model, *_copied(calls[0]), compiler=compiler, kwargs=named, **settings)
    for call in calls:
        for _ in range(2):
            mine, theirs = _copied(call), _copied(call)
            torch.manual_seed(0)
            found = program(*mine, **named)
            torch.manual_seed(0)
            with torch.no_grad():
                expected = reference(*theirs, **named)
            assert_same(found, expected, tolerance)
            assert_same(mine, theirs, tolerance)
    if isinstance(model, nn.Module):
        assert_same(dict(model.named_buffers()), dict(reference.named_buffers()), tolerance)
    return program


def _copied(values: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments whose tensors are copies with the same strides."""
    return tuple(pytree.tree_map(_copy, tuple(values)))


def _copy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    return made.copy_(value) if _dense(value) else value.clone()


def _dense(tensor: Tensor) -> bool:
    return all(stride > 0 for stride in tensor.stride())


def shares_memory(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are kept in one storage."""
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
