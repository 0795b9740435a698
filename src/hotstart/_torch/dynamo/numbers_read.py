"""Let Dynamo read numbers from tensors of one element, as eager does."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from hotstart._torch.dynamo.size_tensors import number_of_sizes
from hotstart._torch.in_between import in_between

_NUMBERS: Mapping[str, tuple[int, str]] = {
    "pad": (1, "pad"),
    "full_like": (1, "fill_value"),
    "new_full": (2, "fill_value"),
    "roll": (1, "shifts"),
    "select": (2, "index"),
    "linspace": (2, "steps"),
    "logspace": (2, "steps"),
    "tril": (1, "diagonal"),
    "triu": (1, "diagonal"),
}
"""Operators that read a number from a tensor: the place of that argument, and its name."""

_FUNCTIONS: Mapping[Any, str] = {
    torch.nn.functional.pad: "pad",
    torch._C._nn.pad: "pad",
    **{
        getattr(torch, name): name
        for name in ("full_like", "roll", "select", "linspace", "logspace", "tril", "triu")
    },
}

_OF_SIZES: Mapping[Any, int] = {
    **dict.fromkeys((torch.zeros, torch.ones, torch.empty, torch.arange), 0),
    **dict.fromkeys(("view", "reshape", "expand", "repeat", "tile", "unflatten", "unfold"), 0),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty", "narrow", "broadcast_to"), 0),
    **dict.fromkeys((torch.hann_window, torch.hamming_window), 0),
    **dict.fromkeys((torch.reshape, torch.tile, torch.narrow, torch.broadcast_to), 1),
    torch.nn.functional.one_hot: 1,
}
"""Functions and methods with numbers one by one, or in a list: how many arguments come before."""


@contextlib.contextmanager
def reading_numbers() -> Iterator[None]:
    """Let numbers be tensors: `pad(x, (0, n))` of a tensor `n` reads it with `item`.

    Dynamo (2.11 to 2.15) leaves the tensor as it is. Its fake value is read while the shape of the
    result is computed, and then no node of the graph makes that number.
    """
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    def call_function(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        if self.value in _OF_SIZES:
            args = _all_read(tx, args, _OF_SIZES[self.value])
        if self.value is torch.nn.functional.one_hot:
            args, kwargs = _with_classes(tx, args, kwargs)
        name = _FUNCTIONS.get(self.value)
        return call(self, tx, *(_read(tx, name, 0, args, kwargs) if name else (args, kwargs)))

    def call_method(call: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "item" and (number := number_of_sizes(tx, self)) is not None:
            return number
        if name in _OF_SIZES:
            args = _all_read(tx, args, _OF_SIZES[name])
        read = _read(tx, name, 1, args, kwargs) if name in _NUMBERS else (args, kwargs)
        return call(self, tx, name, *read)

    with (
        in_between(TorchInGraphFunctionVariable, "call_function", call_function),
        in_between(TensorVariable, "call_method", call_method),
    ):
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


def _read(tx: Any, name: str, bound: int, args: Any, kwargs: Any) -> tuple[list[Any], Any]:
    """Replace the tensor that an operator reads a number from, or those in a list, by numbers.

    `bound`: 1 for a method, whose tensor is not among `args`.
    """
    place, keyword = _NUMBERS[name]
    given = list(args)
    if len(given) > place - bound:
        given[place - bound] = number_of(tx, given[place - bound])
    elif keyword in kwargs:
        kwargs = {**kwargs, keyword: number_of(tx, kwargs[keyword])}
    return given, kwargs


def _all_read(tx: Any, args: Sequence[Any], before: int) -> list[Any]:
    """Replace tensors by the numbers that an operator reads from them, from an argument on."""
    return [*args[:before], *(number_of(tx, each) for each in args[before:])]


def _with_classes(tx: Any, args: Sequence[Any], kwargs: Any) -> tuple[Sequence[Any], Any]:
    """Count the classes of `one_hot` where none are given, as eager does."""
    from torch._dynamo.variables import BuiltinVariable
    from torch._dynamo.variables.constant import ConstantVariable

    given = args[1] if len(args) > 1 else kwargs.get("num_classes")
    if given is not None and not (given.is_python_constant() and given.as_python_constant() == -1):
        return args, kwargs
    classes = args[0] if args else kwargs["input"]
    most = classes.call_method(tx, "max", [], {}).call_method(tx, "item", [], {})
    count = [most, ConstantVariable.create(1)]
    return [classes, BuiltinVariable(operator.add).call_function(tx, count, {})], {}


def number_of(tx: Any, variable: Any) -> Any:
    """Replace a tensor of no dimensions, or those in a list, by the numbers that they hold."""
    from torch._dynamo.variables.lists import ListVariable, TupleVariable
    from torch._dynamo.variables.tensor import TensorVariable

    found = variable.realize()
    if isinstance(found, TensorVariable):
        example = found.proxy.node.meta["example_value"]
        # Of others torch reads no number.
        is_number = example.dim() == 0 and not example.requires_grad
        return found.call_method(tx, "item", [], {}) if is_number else variable
    if isinstance(found, ListVariable | TupleVariable):
        numbers = [number_of(tx, item) for item in found.items]
        if any(one is not other for one, other in zip(numbers, found.items, strict=True)):
            return type(found)(numbers)
    return variable
