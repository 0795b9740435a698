"""Let Dynamo index tensors by numbers that tensors hold, as eager does: `x[i]`, `x[:, i] = 0`.

Eager reads a number from every integer tensor of no dimensions in a key, and selects by it before
it does anything else. Dynamo (2.11 to 2.15) selects by a number that is the whole key; within a
tuple, or read from a tensor, the number would have to be known.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hotstart._torch.dynamo.numbers_read import number_of
from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def indexing_by_numbers() -> Iterator[None]:
    """Trace `x[i, :]` as `x.select(0, i)[:]`, for numbers that a trace does not know.

    Dynamo indexes through `BuiltinVariable.call_function`, and writes through
    `TensorVariable.method___setitem__` (2.11 to 2.15).
    """
    from torch._dynamo.variables import BuiltinVariable
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.lists import TupleVariable
    from torch._dynamo.variables.tensor import TensorVariable

    def call_builtin(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        is_index = self.fn is operator.getitem and isinstance(args[0].realize(), TensorVariable)
        if not is_index or _is_nested(tx):
            return call(self, tx, args, kwargs)
        selected, rest = _selected(tx, args[0].realize(), args[1])
        if rest is None:
            return call(self, tx, args, kwargs)
        return call(self, tx, [selected, TupleVariable(rest)], {}) if rest else selected

    def setitem(call: Any, self: Any, tx: Any, key: Any, value: Any) -> Any:
        selected, rest = (self, None) if _is_nested(tx) else _selected(tx, self, key)
        if rest is None:
            return call(self, tx, key, value)
        return call(selected, tx, TupleVariable(rest or [ConstantVariable.create(...)]), value)

    with (
        in_between(BuiltinVariable, "call_function", call_builtin),
        in_between(TensorVariable, "method___setitem__", setitem),
    ):
        yield


def _is_nested(tx: Any) -> bool:
    """Tell whether the body of a higher-order operator is traced, or of a functional transform.

    What calls it may be one of many calls at once, as of the functions of `flex_attention`.
    """
    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return is_transformed or tx.output.current_tracer.parent is not None


def _selected(tx: Any, tensor: Any, key: Any) -> tuple[Any, list[Any] | None]:
    """Select from a tensor by the numbers in a key that a trace does not know.

    Args:
        tx: Dynamo's translator.
        tensor: its variable.
        key: that of the key.

    Returns:
        What is selected, and the parts of the key that are left; the tensor and None if there are
        no such numbers, or something else in the key is not understood.
    """
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.lists import TupleVariable

    found = key.realize()
    parts = [
        part.realize() for part in (found.items if isinstance(found, TupleVariable) else [found])
    ]
    numbers = [index for index, part in enumerate(parts) if _is_number(part)]
    if not numbers:
        return tensor, None
    dims = _dims(parts, tensor.proxy.node.meta["example_value"].dim())
    if dims is None:
        return tensor, None
    for index in reversed(numbers):  # those before keep their dimensions
        by = [ConstantVariable.create(dims[index]), number_of(tx, parts[index])]
        tensor = tensor.call_method(tx, "select", by, {})
    return tensor, [part for index, part in enumerate(parts) if index not in numbers]


def _is_number(part: Any) -> bool:
    """Tell whether a part of a key is an integer that a trace does not know."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    if isinstance(part, SymNodeVariable):
        return isinstance(part.sym_num, torch.SymInt)
    if not isinstance(part, TensorVariable):
        return False
    fake = part.proxy.node.meta["example_value"]
    is_integer = not (fake.is_floating_point() or fake.is_complex() or _is_mask(fake))
    return fake.dim() == 0 and is_integer


def _is_mask(fake: torch.Tensor) -> bool:
    return fake.dtype in (torch.bool, torch.uint8)


def _dims(parts: Sequence[Any], rank: int) -> list[int] | None:
    """List the first dimension that each part of a key takes; None if that is not certain."""
    taken = [_taken(part) for part in parts]
    if None in taken:
        return None
    rest = rank - sum(count for count in taken if count is not None and count is not ...)
    dims, dim = [], 0
    for count in taken:
        dims.append(dim)
        dim += rest if count is ... else count
    return dims


def _taken(part: Any) -> Any:
    """Count the dimensions that a part of a key takes; `...`: all that are left, None: unknown."""
    from torch._dynamo.variables.lists import SliceVariable
    from torch._dynamo.variables.tensor import TensorVariable

    if isinstance(part, SliceVariable) or _is_number(part):
        return 1
    if isinstance(part, TensorVariable):
        fake = part.proxy.node.meta["example_value"]
        return fake.dim() if _is_mask(fake) else 1
    if not part.is_python_constant():
        return None
    match part.as_python_constant():
        case None | bool():
            return 0
        case int():
            return 1
        case [*items] if all(type(item) is int for item in items):
            return 1
        case value:
            return ... if value is ... else None
