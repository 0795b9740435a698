"""Record a traced call of a block: its arguments, nodes and results, to compare others with it.

Private names, of torch 2.11 to 2.15: the classes of `torch._dynamo.variables`, for what a call is
given and returns, and `FakeTensor`, the values of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

_NUMBERS = (
    int | float | complex | bool | torch.SymInt | torch.SymFloat | torch.SymBool | torch.Size | None
)

_RESHAPES = frozenset(
    {"as_strided_", "detach_", "rename_", "requires_grad_", "resize_", "resize_as_", "set_",
     "squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_", "unsqueeze_"}
)  # fmt: skip
"""Operators that change what is known of a tensor, not what it holds."""

_AUTOCAST = ("cpu", "cuda", "xpu", "mps", "hpu", "xla", "mtia", "privateuseone")


class UnknownError(Exception):
    """A block's call has a part that is not known to be the same in the next call."""


@dataclass(frozen=True)
class Given:
    """The arguments or results of a call.

    Attributes:
        tree: a hashable value.
        nodes: those of its leaves in order.
        known: what is known of their values at the time of the call.
    """

    tree: Any
    nodes: tuple[fx.Node, ...]
    known: tuple[Any, ...]

    @property
    def repeats(self) -> tuple[int, ...]:
        """Number, for each leaf, the first that is the same node."""
        return tuple(map(self.nodes.index, self.nodes))


@dataclass(frozen=True)
class BlockCall:
    """A call of a block that was traced.

    Attributes:
        block: what was called.
        source: Dynamo's source of it.
        given: what it was called with.
        modes: modes of torch it was traced in.
        nodes: what it added to the graph, without placeholders.
        returned: what it returned.
        outside: the modules around it: how many entries of `nn_module_stack` are theirs.
        before, after: how often modules had been called, by name.
        layout_reads: which of the trace's questions about layouts it asked.
        guards: what was read of the block and what it holds.
        reads: the objects among these.
        weights_read: whether some of its weights were read before the call, so that the order of
            the placeholders does not tell in which the call reads them.
        fresh: the nodes whose values share no memory with earlier ones.
    """

    block: torch.nn.Module
    source: Any
    given: Given
    modes: tuple[Any, ...]
    nodes: tuple[fx.Node, ...]
    returned: Given
    outside: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    layout_reads: range
    guards: tuple[Any, ...]
    reads: tuple[tuple[Any, Any], ...]
    weights_read: bool
    fresh: frozenset[fx.Node]


def described(value: Any) -> Given:
    """Describe arguments or results, which are variables of Dynamo's.

    Raises:
        UnknownError: an object may be in it that another call sees otherwise.
    """
    nodes: list[fx.Node] = []
    tree = _tree(value, nodes)
    return Given(tree, tuple(nodes), tuple(map(metadata, nodes)))


def _tree(value: Any, nodes: list[fx.Node]) -> Any:
    from torch._dynamo import variables
    from torch._dynamo.variables import tensor
    from torch._dynamo.variables.lazy import LazyVariableTracker

    if isinstance(value, dict):
        return "names", tuple((name, _tree(each, nodes)) for name, each in value.items())
    if isinstance(value, tuple):
        return "tuple", tuple(_tree(each, nodes) for each in value)
    if isinstance(value, LazyVariableTracker):
        if not value.is_realized():
            return _by_source(value)
        value = value.realize()
    if type(value) is variables.TupleVariable:
        return "tuple", tuple(_tree(each, nodes) for each in value.items)
    if isinstance(value, variables.ConstantVariable):
        return "constant", (type(value.value), value.value, repr(value.value))
    if type(value) in (variables.TensorVariable, tensor.SymNodeVariable):
        proxy = value.as_proxy()
        if isinstance(proxy, fx.Proxy):
            nodes.append(proxy.node)
            return (type(value), getattr(value, "class_type", None)), len(nodes) - 1
        raise UnknownError
    return _by_source(value)


def _by_source(value: Any) -> Any:
    """Name an object that was there before the call, and that nothing changed since."""
    if getattr(value, "source", None) is None:
        raise UnknownError
    return "source", value.source.name


def require_repeatable(nodes: tuple[fx.Node, ...], given: Given, returned: Given) -> None:
    """Raise for nodes that depend on more than what a call is given and weights."""
    within = set(nodes)
    if not within.issuperset(returned.nodes):
        raise UnknownError
    if "source" in _kinds(returned.tree):
        raise UnknownError
    for node in nodes:
        if node.op not in ("call_function", "call_method") or not _is_known(node):
            raise UnknownError
        if _called(node) in _RESHAPES:
            raise UnknownError
        for read in node.all_input_nodes:
            if read not in within and read not in given.nodes and read.op != "placeholder":
                raise UnknownError


def _called(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_known(node: fx.Node) -> bool:
    """Tell whether `metadata` describes a node's value."""
    if "example_value" not in node.meta:
        return False
    values = [node.meta["example_value"]]
    for value in values:
        if type(value) in (tuple, list):
            values += value
        elif not isinstance(value, torch.Tensor | _NUMBERS):
            return False
    return True


def _kinds(tree: Any) -> Iterator[Any]:
    kind, value = tree
    yield kind
    if kind == "tuple":
        for each in value:
            yield from _kinds(each)


def same_given(earlier: Given, given: Given) -> bool:
    return (
        earlier.tree == given.tree
        and earlier.repeats == given.repeats
        and earlier.known == given.known
    )


def metadata(node: fx.Node) -> Any:
    """Describe the value of a node while tracing, to compare it."""
    return described_value(node.meta.get("example_value"))


def described_value(value: Any) -> Any:
    """Describe a value of a node, as `metadata` does."""
    if isinstance(value, torch.Tensor):
        return (
            type(value),
            tuple(map(_expr, value.shape)),
            tuple(map(_expr, value.stride())) if value.layout == torch.strided else (),
            value.dtype,
            value.device,
            value.layout,
            value.requires_grad,
            value.is_conj(),
            value.is_neg(),
        )
    if isinstance(value, tuple | list):
        return type(value), tuple(map(described_value, value))
    return type(value), _expr(value)


def _expr(value: Any) -> Any:
    symbolic = isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
    return value.node.expr if symbolic else value


def modes_of_torch() -> tuple[Any, ...]:
    """List the modes of torch that decide what operators make, or that code may ask for."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        *map(torch.is_autocast_enabled, _AUTOCAST),
        *map(torch.get_autocast_dtype, _AUTOCAST),
        torch.is_autocast_cache_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_anomaly_enabled(),
        torch._C._len_torch_function_stack(),
    )


def nodes_since(last: fx.Node) -> Iterator[fx.Node]:
    """List the nodes after one, without placeholders, which Dynamo adds at the beginning."""
    node = last.next
    while node.op != "root":
        if node.op != "placeholder":
            yield node
        node = node.next


def fresh_nodes(nodes: tuple[fx.Node, ...]) -> Iterator[fx.Node]:
    """List the nodes whose value is a tensor in memory that no earlier node's value is in."""
    seen = {_memory(read) for node in nodes for read in node.all_input_nodes} - {
        _memory(node) for node in nodes
    }
    for node in nodes:
        memory = _memory(node)
        if memory is not None and memory not in seen and not _is_part(node):
            yield node
        seen.add(memory)


def _is_part(node: fx.Node) -> bool:
    """Tell whether an operator returned a view of what it made inside."""
    value = node.meta["example_value"]
    return bool(value._is_view()) or value.storage_offset() != 0


def _memory(node: fx.Node) -> int | None:
    """Identify the memory of a plain tensor; None for other values."""
    value = node.meta.get("example_value")
    if type(value) is not FakeTensor or value.requires_grad or value.layout != torch.strided:
        return None
    return int(value.untyped_storage()._cdata)
