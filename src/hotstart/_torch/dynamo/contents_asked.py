"""Trace functions that tell something of what tensors hold by the operators that they are made of.

`torch.equal`, `torch.allclose` and `torch.is_nonzero` give a Python bool, which no operator of a
graph does (2.11 to 2.15). The number in a tensor of one element is a bool as well.
"""

from __future__ import annotations

import contextlib
import dis
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hotstart._torch.in_between import in_between, with_entries, with_items


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
    """Trace the code above in the place of these functions, and of the methods of their names.

    Of a number and True, the instruction for `is` compares what stands for them (2.11 to 2.15).
    """
    from torch._dynamo.symbolic_convert import InliningInstructionTranslator, InstructionTranslator
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

    def identity(compare: Callable[..., Any]) -> Callable[..., Any]:
        def is_op(tx: Any, instruction: Any) -> Any:
            found = _is_bool(tx, *tx.stack[-2:], negated=bool(instruction.argval))
            if found is None:
                return compare(tx, instruction)
            tx.popn(2)
            return tx.push(found)

        return is_op

    entries = {getattr(torch, name): traced(function) for name, function in _MADE_OF.items()}
    with (
        with_entries(TorchInGraphFunctionVariable._get_handlers(), entries),
        in_between(TensorVariable, "call_method", call_method),
        contextlib.ExitStack() as replaced,
    ):
        number = dis.opmap["IS_OP"]
        for cls in (InstructionTranslator, InliningInstructionTranslator):
            table: Any = cls.dispatch_table
            replaced.enter_context(with_items(table, {number: identity(table[number])}))
        yield


def _is_bool(tx: Any, left: Any, right: Any, *, negated: bool) -> Any:
    """Answer `flag is True` where a tensor holds the flag; None for other comparisons."""
    from torch._dynamo.variables.tensor import SymNodeVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    for flag, other in ((left, right), (right, left)):
        if not isinstance(flag.realize(), SymNodeVariable) or not other.is_python_constant():
            continue
        constant = other.as_python_constant()
        if isinstance(flag.realize().sym_num, torch.SymBool) and type(constant) is bool:
            if constant is not negated:
                return flag
            return TorchInGraphFunctionVariable(torch.sym_not).call_function(tx, [flag], {})
    return None
