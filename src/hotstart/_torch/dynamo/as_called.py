"""Have Dynamo put operators into the graph as they are called."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch

from hotstart._torch.in_between import in_between, with_entries


@contextlib.contextmanager
def operators_as_called() -> Iterator[None]:
    """Put operators into the graph that Dynamo makes others of, whatever `trace_settings` say.

    `TorchInGraphFunctionVariable` (2.11 to 2.15) has a handler for each. Of
    `torch.addcdiv(x, a, b, value=v)` one makes a quotient, a product and a sum: they round one by
    one, and in float16 the quotient may be infinite where eager's result is none. Of
    `torch.full(size, tensor)` one fills an empty tensor, whose dtype is the default one. None knows
    that `torch.result_type` gives a dtype, that `torch.as_tensor`, `torch.Tensor` and the classes
    of other dtypes take sizes as `torch.tensor` does, or that `torch.unravel_index` takes any.
    """
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
    from torch._dynamo.variables.user_defined import UserDefinedClassVariable

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
        torch.unravel_index: _unravel_index,
    }
    if torch.full in handlers:
        entries[torch.full] = full(handlers[torch.full])
    with (
        with_entries(handlers, entries),
        in_between(UserDefinedClassVariable, "call_function", _tensor_of_class),
    ):
        yield


def _tensor_of_class(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
    """Make `torch.FloatTensor([n, 1])` as `torch.tensor`, which takes sizes, with its dtype."""
    from torch._dynamo.utils import tensortype_to_dtype
    from torch._dynamo.variables.base import VariableTracker
    from torch._dynamo.variables.builtin import BuiltinVariable
    from torch._dynamo.variables.lists import ListVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    of_class = self.value is torch.Tensor or self.value in tensortype_to_dtype
    if not of_class or len(args) != 1 or kwargs or not _is_list_of_sizes(args[0].realize()):
        return call(self, tx, args, kwargs)
    made = TorchInGraphFunctionVariable(torch.tensor)
    if self.value is torch.Tensor:  # of the default dtype in a call
        to_float = BuiltinVariable(float)
        numbers = [to_float.call_function(tx, [n], {}) for n in args[0].realize().items]
        return made.call_function(tx, [ListVariable(numbers)], {})
    dtype = VariableTracker.build(tx, tensortype_to_dtype[self.value][0])
    return made.call_function(tx, list(args), {"dtype": dtype})


def _unravel_index(_: Any, tx: Any, indices: Any, shape: Any) -> Any:
    """Find the place of each element in every dimension, as `torch.functional` does.

    It makes a tensor of the shape there, and another one of how far apart elements are; both by
    `new_tensor`, which a trace calls with plain numbers.
    """
    from torch._dynamo.variables.builtin import BuiltinVariable
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.lists import ListVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    if not _is_list_of_sizes(shape.realize()):
        return None
    sizes, apart = shape.realize().items, [ConstantVariable.create(1)]
    times = BuiltinVariable(operator.mul)
    for size in reversed(sizes[1:]):
        apart.insert(0, times.call_function(tx, [apart[0], size], {}))
    tensor = TorchInGraphFunctionVariable(torch.tensor)
    divisors, moduli = (tensor.call_function(tx, [ListVariable(n)], {}) for n in (apart, sizes))
    places = indices.call_method(tx, "unsqueeze", [ConstantVariable.create(-1)], {})
    places = places.call_method(tx, "floor_divide", [divisors], {})
    places = TorchInGraphFunctionVariable(torch.remainder).call_function(tx, [places, moduli], {})
    return places.call_method(tx, "unbind", [ConstantVariable.create(-1)], {})


def _of_number(tx: Any, tensor: Any) -> Any:
    """Name the dtype that `torch.full` gives the number in a tensor where none is asked for."""
    from torch._dynamo.variables.base import VariableTracker

    number = torch.empty((), dtype=tensor.dtype).fill_(0).item()
    return VariableTracker.build(tx, torch.full((), number).dtype)


def _is_list_of_sizes(data: Any) -> bool:
    """Tell whether data is a list of numbers, of which some are symbols."""
    from torch._dynamo.variables.lists import BaseListVariable

    flat = isinstance(data, BaseListVariable) and not any(
        isinstance(item.realize(), BaseListVariable) for item in data.items
    )
    return flat and _is_made_of_sizes(data)


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
