"""Let Dynamo read numbers from tensors of one element, as eager does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def reading_paddings() -> Iterator[None]:
    """Let paddings be tensors: `pad(x, (0, n))` of a tensor `n` reads it with `item`.

    Dynamo (2.11 to 2.15) leaves the tensor in the tuple. Its fake value is read while the shape of
    the result is computed, and then no node of the graph makes that number.
    """
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    pads = (torch.nn.functional.pad, torch._C._nn.pad)

    def call_function(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        if self.value not in pads:
            return call(self, tx, args, kwargs)
        given = [_read(tx, arg) for arg in args]
        named = {name: _read(tx, arg) if name == "pad" else arg for name, arg in kwargs.items()}
        return call(self, tx, [*args[:1], *given[1:2], *args[2:]], named)

    with in_between(TorchInGraphFunctionVariable, "call_function", call_function):
        yield


@contextlib.contextmanager
def reading_lists() -> Iterator[None]:
    """Let `tolist` read floating-point numbers and booleans, too, of as many as are known.

    `TensorVariable.method_tolist` (2.11 to 2.15) reads most integers, and raises for others. It is
    reached through `call_method`, since 2.14 by a table that has it under no name to replace.
    """
    from torch._dynamo.variables.tensor import TensorVariable

    def call_method(call: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "tolist" and not (args or kwargs):
            example = self.proxy.node.meta["example_value"]
            known = all(type(size) is int for size in example.shape)
            if known and (example.is_floating_point() or example.dtype in _READ):
                return _listed(tx, self, example.shape)
        return call(self, tx, name, args, kwargs)

    with in_between(TensorVariable, "call_method", call_method):
        yield


_READ = (torch.bool, torch.uint8)


def _listed(tx: Any, tensor: Any, shape: Sequence[int]) -> Any:
    """A variable of Dynamo's for the nested lists of a tensor's numbers."""
    from torch._dynamo.variables.base import ValueMutationNew
    from torch._dynamo.variables.constant import ConstantVariable
    from torch._dynamo.variables.lists import ListVariable

    if not shape:
        return tensor.call_method(tx, "item", [], {})
    numbers = map(ConstantVariable.create, range(shape[0]))
    parts = [tensor.call_method(tx, "__getitem__", [number], {}) for number in numbers]
    items = [_listed(tx, part, shape[1:]) for part in parts]
    return ListVariable(items, mutation_type=ValueMutationNew())


@contextlib.contextmanager
def numbers_of_weights_unknown() -> Iterator[None]:
    """Hide the value of weights and buffers of one element from a trace.

    `FakeTensorConverter` (2.11 to 2.15) gives integers and doubles without dimensions a symbol for
    what they hold now, and branches on it are taken as they are now. A program may be bound to
    another checkpoint.
    """
    from torch._subclasses.fake_tensor import SymNumberMemoDescriptor
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    def remember(keep: Any, self: Any, tensor: Any, number: Any) -> None:
        of_data = number is None or free_unbacked_symbols(number)
        if self._name != "item_memo" or of_data:
            keep(self, tensor, number)

    with in_between(SymNumberMemoDescriptor, "__set__", remember):
        yield


def _read(tx: Any, paddings: Any) -> Any:
    """Replace tensors in a list or tuple of Dynamo's by their numbers."""
    from torch._dynamo.variables.lists import ListVariable, TupleVariable
    from torch._dynamo.variables.tensor import TensorVariable

    found = paddings.realize()
    if not isinstance(found, ListVariable | TupleVariable):
        return paddings
    items = [item.realize() for item in found.items]
    if not any(isinstance(item, TensorVariable) for item in items):
        return paddings
    read = [
        item.call_method(tx, "item", [], {}) if isinstance(item, TensorVariable) else item
        for item in items
    ]
    return type(found)(read)
