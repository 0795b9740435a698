"""Trace functions that tell something of what tensors hold by the operators that they are made of.

`torch.equal`, `torch.allclose` and `torch.is_nonzero` give a Python bool, which no operator of a
graph does (2.11 to 2.15). The number in a tensor of one element is a bool as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hotstart._torch.in_between import in_between, with_entries


def _equal(input: Tensor, other: Tensor) -> Any:
    return input.shape == other.shape and (input == other).all().item()


def _allclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> Any:
    return torch.isclose(input, other, rtol, atol, equal_nan).all().item()


def _is_nonzero(input: Tensor) -> Any:
    return input.reshape(()).to(torch.bool).item()


_MADE_OF: dict[str, Callable[..., Any]] = {
    "equal": _equal,
    "allclose": _allclose,
    "is_nonzero": _is_nonzero,
}


@contextlib.contextmanager
def asking_contents() -> Iterator[None]:
    """Trace the code above in the place of these functions, and of the methods of their names."""
    from torch._dynamo.variables.base import VariableTracker
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def traced(function: Callable[..., Any]) -> Callable[..., Any]:
        def handle(_: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
            code = VariableTracker.build(tx, function)
            return tx.inline_user_function_return(code, list(args), kwargs)

        return handle

    def call_method(call: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name not in _MADE_OF:
            return call(self, tx, name, args, kwargs)
        return traced(_MADE_OF[name])(None, tx, self, *args, **kwargs)

    entries = {getattr(torch, name): traced(function) for name, function in _MADE_OF.items()}
    with (
        with_entries(TorchInGraphFunctionVariable._get_handlers(), entries),
        in_between(TensorVariable, "call_method", call_method),
    ):
        yield
