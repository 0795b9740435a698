"""Record the operators that a function calls, with their arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Called = list[tuple[Any, Mapping[str, Any]]]
"""Operators, each with its arguments by name."""


@contextlib.contextmanager
def watching_operators() -> Iterator[Called]:
    """List the operators that are called, below autograd, with their arguments by name."""
    called: Called = []
    with _Noting(called):
        yield called


class _Noting(TorchDispatchMode):
    """Notes every operator, and calls it."""

    def __init__(self, called: Called) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._called = called

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = [argument.name for argument in func._schema.arguments]
        by_name = dict(zip(names, args, strict=False))
        self._called.append((func, {**by_name, **(kwargs or {})}))
        return func(*args, **(kwargs or {}))


def draws_numbers(operator: Any, given: Mapping[str, Any]) -> bool:
    """Tell whether a call of an operator draws random numbers; attention without dropout does not.

    Args:
        operator: an overload.
        given: its arguments by name, but for those left at their defaults.
    """
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    defaults = {argument.name: argument.default_value for argument in operator._schema.arguments}
    return {**defaults, **given}.get("dropout_p") != 0
