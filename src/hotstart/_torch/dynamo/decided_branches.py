"""Let Dynamo trace past a data-dependent condition whose value makes no difference."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from hotstart._torch.in_between import in_between

_JUMPS = ("JUMP_IF_FALSE_OR_POP", "POP_JUMP_IF_FALSE", "POP_JUMP_FORWARD_IF_FALSE")
"""Instructions that evaluate `and`: the first up to Python 3.11, the others from 3.12 on."""

_BETWEEN = frozenset({"COPY", "TO_BOOL", "POP_TOP", "NOT_TAKEN", "CACHE", "EXTENDED_ARG"})

_OPERANDS = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CONST", "IS_OP"})
"""Instructions that operands of `and` may consist of here: names, constants, identity."""


@contextlib.contextmanager
def going_on_where_all_is_decided() -> Iterator[None]:
    """Let a trace pass `n > 1 and mask is None and causal`, where `causal` is False.

    For any `n`, that is False. `SymNodeVariable.evaluate_expr` (2.11 to 2.15) raises since it does
    not know `n`. Here it returns True, so that Dynamo goes on to the operand that is False.
    """
    from torch._dynamo.exc import UserError
    from torch._dynamo.variables.tensor import SymNodeVariable

    def evaluate(known: Any, self: Any, output: Any = None) -> Any:
        try:
            return known(self, output)
        except UserError:
            if output is not None and _ends_in_false(output.current_tx):
                return True
            raise

    with in_between(SymNodeVariable, "evaluate_expr", evaluate):
        yield


def _ends_in_false(tx: Any) -> bool:
    """Tell whether the instruction at hand evaluates an `and` whose last operand is False."""
    jump = tx.current_instruction
    if jump.opname not in _JUMPS or jump.target is None:
        return False
    position = tx.indexof[jump]
    before, after = tx.instructions[position - 1], tx.instructions[position + 1]
    if jump.opname != _JUMPS[0]:
        earlier = tx.instructions[position - 2] if before.opname == "TO_BOOL" else before
        if earlier.opname != "COPY" or after.opname not in ("POP_TOP", "NOT_TAKEN"):
            return False
    rest = itertools.takewhile(lambda i: i is not jump.target, tx.instructions[position + 1 :])
    return _is_false(tx, [each for each in rest if each.opname not in _BETWEEN], jump.target)


def _is_false(tx: Any, rest: Sequence[Any], end: Any) -> bool:
    from torch._dynamo.variables import ConstantVariable

    *operands, last = rest or [None]
    if last is None or not last.opname.startswith("LOAD_"):
        return False
    for before, each in itertools.pairwise([last, *operands]):
        # `is` gives True or False; any other operand may be something else that is false.
        tests = each.opname in _JUMPS and each.target is end and before.opname == "IS_OP"
        if not tests and each.opname not in _OPERANDS:
            return False
    if operands and operands[-1].opname not in _JUMPS:
        return False
    if last.opname == "LOAD_CONST":
        return last.argval is False
    held = tx.symbolic_locals.get(last.argval)
    held = None if held is None else held.realize()
    return isinstance(held, ConstantVariable) and held.value is False
