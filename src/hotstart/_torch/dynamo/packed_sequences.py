"""Trace packed sequences: rows of different lengths, one after the other without padding.

How many elements are packed, and how many steps there are, depends on the contents of the lengths.
A trace has a number for each, as it has for what `nonzero` finds. Packing, recurrent layers over
what is packed, and padding run as in eager, outside of pieces.
"""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx
from torch.nn.utils import rnn

from hotstart._torch.in_between import in_between, with_entries

_PACK: Any = torch._VF._pack_padded_sequence
_PAD: Any = torch._VF._pad_packed_sequence
_LAYERS: tuple[Any, ...] = tuple(
    getattr(torch._VF, name) for name in ("gru", "rnn_tanh", "rnn_relu", "lstm")
)
_FUNCTIONS = (_PACK, _PAD, *_LAYERS)


@contextlib.contextmanager
def packed_sequences() -> Iterator[None]:
    """Let Dynamo trace `torch.nn.utils.rnn`, which it skips, and the operators that it calls."""
    from torch._dynamo.trace_rules import get_torch_obj_rule_map
    from torch._dynamo.utils import proxy_args_kwargs
    from torch._dynamo.variables import UserFunctionVariable
    from torch._dynamo.variables.builder import wrap_fx_proxy
    from torch._dynamo.variables.tensor import TensorVariable
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    # `get_torch_obj_rule_map` (2.11 to 2.15) names two of these functions as skipped; the others
    # are in a skipped file.
    functions = [each for each in vars(rnn).values() if isinstance(each, types.FunctionType)]
    traced = {each: UserFunctionVariable for each in functions if each.__module__ == rnn.__name__}

    rows = _Rows()

    def call_function(call: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        if self.value not in _FUNCTIONS or kwargs:
            return call(self, tx, args, kwargs)
        given, _ = proxy_args_kwargs(args, {})
        if not _is_packed(self.value, given):
            return call(self, tx, args, kwargs)
        proxy = tx.output.create_proxy("call_function", self.value, given, {})
        with tx.fake_mode:
            made = _result(proxy.node, rows)
        return wrap_fx_proxy(tx, proxy, example_value=made)

    def call_method(call: Any, self: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        in_layer = tx.f_code.co_filename == torch.nn.modules.rnn.__file__
        sizes = _sizes_of_first_step(self.proxy.node) if name == "item" and in_layer else None
        if sizes is None:
            return call(self, tx, name, args, kwargs)
        return rows.read(tx, sizes, lambda: call(self, tx, name, args, kwargs))

    with (
        with_entries(get_torch_obj_rule_map(), traced),
        in_between(TorchInGraphFunctionVariable, "call_function", call_function),
        in_between(TensorVariable, "call_method", call_method),
    ):
        yield


def takes_packed(node: fx.Node) -> bool:
    """Tell whether a node packs rows, pads them, or is a recurrent layer over packed ones."""
    return node.target in _FUNCTIONS and _is_packed(node.target, node.args)


class _Rows:
    """The number of packed rows: that of the first step, which layers read again and again.

    It is a size of the lengths that were packed, or a number that is read once.
    """

    def __init__(self) -> None:
        self._read: dict[fx.Node, tuple[int, Any]] = {}

    def read(self, tx: Any, sizes: fx.Node, item: Callable[[], Any]) -> Any:
        """A variable of Dynamo's for the number of rows that have a first step.

        Args:
            tx: Dynamo's translator.
            sizes: the node of how many rows have each step.
            item: reads it from there.
        """
        version = _fake(sizes)._version
        if self._version_read(sizes) != version:
            lengths = _lengths(sizes)
            variable = item() if lengths is None else _size(tx, lengths)
            self._read[sizes] = version, variable
        return self._read[sizes][1]

    def number(self, sizes: fx.Node) -> Any:
        """The number of rows as a trace knows it."""
        lengths = _lengths(sizes)
        if lengths is not None:
            return _fake(lengths).shape[0]
        if self._version_read(sizes) != _fake(sizes)._version:
            return _new_number(_fake(sizes))
        _, variable = self._read[sizes]
        is_constant = variable.is_python_constant()
        return variable.as_python_constant() if is_constant else variable.sym_num

    def _version_read(self, sizes: fx.Node) -> int | None:
        """The version of the sizes when their first number was read; None if it was not."""
        version, _ = self._read.get(sizes, (None, None))
        return version


def _is_packed(function: Any, args: Sequence[Any]) -> bool:
    """Tell whether one of `_FUNCTIONS` makes or takes what is packed.

    Where a layer's steps are padded, its weights come one place earlier.
    """
    return function in (_PACK, _PAD) or isinstance(args[3], list | tuple)


def _result(node: fx.Node, rows: _Rows) -> tuple[torch.Tensor, ...]:
    if node.target == _PACK:
        return _packed(node)
    return _padded(node, rows) if node.target == _PAD else _layer(node)


def _packed(node: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Describe the elements, and for each step how many rows have one."""
    given, lengths, _ = _fakes(node)
    elements, steps = _new_number(given), _new_number(given)
    return given.new_empty((elements, *given.shape[2:])), lengths.new_empty(steps)


def _padded(node: fx.Node, rows: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Describe the rows, all of one length, and the lengths they had."""
    data, sizes, batch_first, _, total = _fakes(node)
    _, of_steps, *_ = node.args
    assert isinstance(of_steps, fx.Node)  # no one packs constants
    count = rows.number(of_steps)
    steps = sizes.shape[0] if isinstance(total, int) and total <= 0 else total
    padded = data.new_empty((steps, count, *data.shape[1:]))
    return (padded.transpose(0, 1) if batch_first else padded), sizes.new_empty(count)


def _layer(node: fx.Node) -> tuple[torch.Tensor, ...]:
    """Describe what a layer gives for each element, and its last states."""
    data, _, state, weights, *settings = _fakes(node)
    states = pytree.tree_leaves(state)
    features = states[0].shape[2] * (2 if settings[-1] else 1)
    kinds = _dtypes(node.target, data, state, weights, settings)
    shapes = [(data.shape[0], features), *(each.shape for each in states)]
    return tuple(
        data.new_empty(shape, dtype=dtype) for shape, dtype in zip(shapes, kinds, strict=True)
    )


def _dtypes(
    function: Any, data: torch.Tensor, state: Any, weights: Any, settings: Sequence[Any]
) -> list[torch.dtype]:
    """The dtypes of what a layer gives, which autocast may choose: those for one element."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    def real(fake: torch.Tensor, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=fake.dtype, device=fake.device)

    with unset_fake_temporarily():
        element = real(data, 1, data.shape[1])
        states = pytree.tree_map(lambda each: real(each, each.shape[0], 1, each.shape[2]), state)
        numbers = [real(each, *each.shape) for each in weights]
        return [
            made.dtype for made in function(element, torch.tensor([1]), states, numbers, *settings)
        ]


def _fakes(node: fx.Node) -> list[Any]:
    """The arguments of a node, with fake tensors."""
    return list(fx.node.map_arg(node.args, _fake))


def _new_number(fake: Any) -> torch.SymInt:
    """A number that the contents of tensors decide, for a size."""
    from torch.fx.experimental.symbolic_shapes import _constrain_range_for_size

    number: torch.SymInt = fake.fake_mode.shape_env.create_unbacked_symint()
    _constrain_range_for_size(number)
    return number


def _sizes_of_first_step(node: fx.Node) -> fx.Node | None:
    """The node of how many rows have each step, if a node may be its first number."""
    sizes, index = _whole(node)
    if not isinstance(sizes, fx.Node) or type(index) is not int or index != 0:
        return None
    fake = _fake(sizes)
    is_one = isinstance(fake, torch.Tensor) and fake.dim() == 1 and fake.dtype == torch.int64
    return sizes if is_one else None


def _lengths(sizes: fx.Node) -> fx.Node | None:
    """The node of the lengths that rows were packed by, given that of how many have each step."""
    pack, index = _whole(sizes)
    is_packed = isinstance(pack, fx.Node) and pack.target == _PACK and index == 1
    if not is_packed or _fake(sizes)._version > 0:
        return None
    lengths = pack.args[1]
    assert isinstance(lengths, fx.Node)
    return lengths


def _whole(node: fx.Node) -> tuple[Any, Any]:
    """Split a node that takes a part into the whole and the index; None twice for other nodes."""
    if node.target != operator.getitem:
        return None, None
    whole, index = node.args
    return whole, index


def _size(tx: Any, tensor: fx.Node) -> Any:
    """A variable of Dynamo's for the first size of a tensor."""
    from torch._dynamo.variables import ConstantVariable
    from torch._dynamo.variables.builder import wrap_fx_proxy

    size = _fake(tensor).shape[0]
    if isinstance(size, int):
        return ConstantVariable.create(size)
    asked = (fx.Proxy(tensor, tx.output.current_tracer), 0)
    return wrap_fx_proxy(tx, tx.output.create_proxy("call_method", "size", asked, {}))


def _fake(node: fx.Node) -> Any:
    return node.meta["example_value"]
