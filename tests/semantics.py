"""What tests of semantics share: a program beside the model itself, call for call."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from torch import Tensor, nn

import hotstart
from qualification.compare import (
    Inputs,
    Standard,
    copied,
    observe,
    require_same,
    require_same_result,
)

COMPILERS = ("op_by_op", "inductor")

both = pytest.mark.parametrize(
    "compiler", ["op_by_op", pytest.param("inductor", marks=pytest.mark.thorough)]
)
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
    require_same_result(found, expected, Standard(tolerance))


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

    Results, what calls leave in their arguments and the model's tensors, and which results share
    memory with arguments are compared. The model is copied first, unless there is a `reference`.
    """
    if reference is None:
        reference = copy.deepcopy(model) if isinstance(model, nn.Module) else model
    given = [Inputs(tuple(call), dict(kwargs or {})) for call in calls]
    example = copied(given[0])
    program = build(model, *example.args, compiler=compiler, kwargs=example.kwargs, **settings)
    for inputs in given:
        for _ in range(2):
            found = observe(program, _holder(model), inputs)
            expected = observe(reference, _holder(reference), inputs)
            require_same(found, expected, Standard(tolerance))
    return program


def _holder(model: Any) -> nn.Module:
    return model if isinstance(model, nn.Module) else nn.Module()


def shares_memory(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors are kept in one storage."""
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()
