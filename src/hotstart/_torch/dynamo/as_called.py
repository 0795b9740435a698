"""Have Dynamo put operators into the graph as they are called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from hotstart._torch.in_between import with_entries


@contextlib.contextmanager
def operators_as_called() -> Iterator[None]:
    """Put operators into the graph that Dynamo makes others of, whatever `trace_settings` say.

    `TorchInGraphFunctionVariable` (2.11 to 2.15) has a handler for each. Of
    `torch.addcdiv(x, a, b, value=v)` one makes a quotient, a product and a sum: they round one by
    one, and in float16 the quotient may be infinite where eager's result is none. Of
    `torch.full(size, tensor)` one fills an empty tensor, whose dtype is the default one. None knows
    that `torch.result_type` gives a dtype, or that `torch.as_tensor` takes sizes as `torch.tensor`
    does.
    """
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    handlers = TorchInGraphFunctionVariable._get_handlers()

    def addcdiv(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        value = kwargs.get("value")
        if not isinstance(value, TensorVariable):
            return None  # as any operator
        number = value.call_method(tx, "item", [], {})
        return self.call_function(tx, list(args), {**kwargs, "value": number})

    def full(handle: Callable[..., Any]) -> Callable[..., Any]:
        def filled(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
            fill = args[1] if len(args) > 1 else kwargs.get("fill_value")
            if isinstance(fill, TensorVariable) and not {"dtype", "out"} & kwargs.keys():
                kwargs["dtype"] = _of_number(tx, fill)
            return handle(self, tx, *args, **kwargs)

        return filled

    def as_tensor(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        data = args[0] if args else kwargs.get("data", kwargs.get("obj"))
        if data is None or not _is_made_of_sizes(data.realize()):
            return None
        named = {name: kwargs[name] for name in kwargs if name not in ("data", "obj")}
        of = TorchInGraphFunctionVariable(torch.tensor)
        return of.call_function(tx, [data, *args[1:]], named)

    entries: dict[Any, Callable[..., Any]] = {
        torch.addcdiv: addcdiv,
        torch.result_type: _result_type,
        torch.as_tensor: as_tensor,
        torch.asarray: as_tensor,
    }
    if torch.full in handlers:
        entries[torch.full] = full(handlers[torch.full])
    with with_entries(handlers, entries):
        yield


def _of_number(tx: Any, tensor: Any) -> Any:
    """Name the dtype that `torch.full` gives the number in a tensor where none is asked for."""
    from torch._dynamo.variables.base import VariableTracker

    number = torch.empty((), dtype=tensor.dtype).fill_(0).item()
    return VariableTracker.build(tx, torch.full((), number).dtype)


def _is_made_of_sizes(data: Any) -> bool:
    """Tell whether data is numbers, in lists or tuples, of which some are symbols."""
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.lists import BaseListVariable
    from torch._dynamo.variables.tensor import SymNodeVariable

    if not isinstance(data, BaseListVariable):
        return isinstance(data, SymNodeVariable)
    items = [item.realize() for item in data.items]
    others = [item for item in items if not isinstance(item, ConstantVariable)]
    return bool(others) and all(map(_is_made_of_sizes, others))


def _result_type(_: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
    """Name the dtype of what two tensors or numbers make, which follows from theirs."""
    from torch._dynamo.variables.base import VariableTracker

    kinds = [_of_its_kind(each.realize()) for each in args]
    named = {name: _of_its_kind(each.realize()) for name, each in kwargs.items()}
    return VariableTracker.build(tx, torch.result_type(*kinds, **named))


def _of_its_kind(variable: Any) -> Any:
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    if isinstance(variable, TensorVariable):
        return variable.as_proxy().node.meta["example_value"]
    if isinstance(variable, SymNodeVariable):
        return variable.python_type()()
    return variable.as_python_constant()
