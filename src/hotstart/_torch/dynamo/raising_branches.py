"""Let Dynamo trace past conditions on what tensors hold, one side of which raises an error.

`if x.isnan().any(): raise ValueError(...)` goes on or ends. A trace goes on, and asserts that in
every call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from hotstart._torch.graphs.source_lines import user_line, without_folders
from hotstart._torch.in_between import with_entries

_EVALUATING = ("LOAD_", "STORE_FAST", "BUILD_", "FORMAT_", "CALL", "BINARY_")
_BETWEEN = frozenset(
    {
        *("CACHE", "NOP", "NOT_TAKEN", "EXTENDED_ARG", "RESUME", "PRECALL", "PUSH_NULL"),
        *("KW_NAMES", "CONVERT_VALUE", "COMPARE_OP", "COPY", "SWAP", "POP_TOP"),
    }
)
"""Instructions that make an error, besides those that begin as in `_EVALUATING`."""


def decide_by_raising(tx: Any, jump: Any, value: Any) -> bool | None:
    """Decide a condition such that forward does not raise; None where neither or both sides do.

    Args:
        tx: Dynamo's translator of the frame.
        jump: the instruction that asks for the condition.
        value: its variable.
    """
    if "OR_POP" in jump.opname or _is_caught(tx):
        return None
    sides = {
        "IF_TRUE" in jump.opname: jump.target,
        "IF_TRUE" not in jump.opname: tx.next_instruction,
    }
    raising = [truth for truth, start in sides.items() if _raises(tx, start)]
    if len(raising) != 1 or not _assert(tx, value.realize(), not raising[0]):
        return None
    return not raising[0]


def _raises(tx: Any, instruction: Any) -> bool:
    """Tell whether code makes and raises an error, whatever it finds."""
    for each in tx.instructions[tx.indexof[instruction] :]:
        if each.opname == "RAISE_VARARGS":
            return True
        if each.opname not in _BETWEEN and not each.opname.startswith(_EVALUATING):
            return False
    return False


def _is_caught(tx: Any) -> bool:
    """Tell whether code around may catch an error, as `try` and contexts of the user's do."""
    while tx is not None:
        if any(map(_may_catch, _handlers(tx))) or not all(map(_passes_on, tx.block_stack)):
            return True
        tx = getattr(tx, "parent", None)
    return False


def _handlers(tx: Any) -> Iterator[list[str]]:
    """Yield how each handler of errors around an instruction begins, the innermost first."""
    met: list[Any] = []
    entry = tx.current_instruction.exn_tab_entry
    while entry is not None and not any(entry.target is each for each in met):
        met.append(entry.target)
        begin = tx.indexof[entry.target]
        names = (each.opname for each in tx.instructions[begin : begin + 8])
        yield [name for name in names if name not in _BETWEEN - {"COPY"}]
        entry = entry.target.exn_tab_entry


def _may_catch(handler: list[str]) -> bool:
    """Tell whether a handler is of none of `with`, and more than the end of another."""
    if handler[:1] == ["PUSH_EXC_INFO"]:
        return handler[1] != "WITH_EXCEPT_START"
    return handler[:3] != ["COPY", "POP_EXCEPT", "RERAISE"]


def _passes_on(block: Any) -> bool:
    """Tell whether a block of a frame is a context of torch's, such as `no_grad`."""
    from torch._dynamo.variables.ctx_manager import (
        ContextWrappingVariable,
        GenericContextWrappingVariable,
    )

    context = block.with_context
    own = isinstance(context, ContextWrappingVariable)
    return own and not isinstance(context, GenericContextWrappingVariable)


def _assert(tx: Any, value: Any, truth: bool) -> bool:
    """Have the graph assert the truth of a tensor or number; tell whether it can."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
    from torch._guards import TracingContext

    if isinstance(value, SymNodeVariable):
        return _check(value.sym_num, truth)
    if not isinstance(value, TensorVariable) or value.as_proxy().node.meta["example_value"].dim():
        return False
    if not truth:
        inverse = TorchInGraphFunctionVariable(torch.logical_not)
        value = inverse.call_function(tx, [value], {})
    line = without_folders(user_line(list(TracingContext.extract_stack())))
    arguments = value.as_proxy(), f"forward raises an error there: {line}"
    tx.output.create_proxy("call_function", torch._assert_async, arguments, {})
    return True


def _check(number: Any, truth: bool) -> bool:
    """Check the truth of a number in every call, as `torch._check` does; tell whether it can.

    Checks of floating-point numbers are no nodes of a graph.
    """
    from torch.fx.experimental.symbolic_shapes import expect_true

    if isinstance(number, torch.SymInt):
        number = number != 0
    if not isinstance(number, torch.SymBool):
        return False
    if not all(symbol.is_integer for symbol in number.node.expr.free_symbols):
        return False
    return bool(expect_true(number if truth else torch.sym_not(number)))


@contextlib.contextmanager
def tracing_checks_of_distributions() -> Iterator[None]:
    """Trace how `torch.distributions` checks its arguments.

    The table of Dynamo's rules (2.11 to 2.15) ends graphs at `is_dependent`, which those checks
    begin with, since it does not trace what follows.
    """
    from torch._dynamo.trace_rules import get_torch_obj_rule_map
    from torch._dynamo.variables.functions import UserFunctionVariable
    from torch.distributions.constraints import is_dependent

    with with_entries(get_torch_obj_rule_map(), {is_dependent: UserFunctionVariable}):
        yield
