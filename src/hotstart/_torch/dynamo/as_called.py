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
    `torch.full(size, tensor)` one fills an empty tensor, whose dtype is the default one.
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

    entries: dict[Any, Callable[..., Any]] = {torch.addcdiv: addcdiv}
    if torch.full in handlers:
        entries[torch.full] = full(handlers[torch.full])
    with with_entries(handlers, entries):
        yield


def _of_number(tx: Any, tensor: Any) -> Any:
    """Name the dtype that `torch.full` gives the number in a tensor where none is asked for."""
    from torch._dynamo.variables.base import VariableTracker

    number = torch.empty((), dtype=tensor.dtype).fill_(0).item()
    return VariableTracker.build(tx, torch.full((), number).dtype)
