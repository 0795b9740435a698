"""Trace what is called with tensors of subclasses, on their inner tensors.

Private names, of torch 2.11 to 2.15: `is_traceable_wrapper_subclass`, and `make_fx`, which traces
the operators that a subclass calls in Python.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx

from hotstart._torch.blocks.block_call import described_value, modes_of_torch
from hotstart._torch.graphs.source_lines import line_of
from hotstart._torch.graphs.values import storage_of
from hotstart._torch.subclasses.inner_tensors import inner_names, put_together
from hotstart._torch.subclasses.recorded_code import recording_code


class NotTakenApartError(Exception):
    """A tensor subclass is used in a way that its inner tensors cannot stand for."""


def is_wrapper(value: Any) -> bool:
    """Tell whether a value is a tensor of a subclass that says what it is made of."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    return isinstance(value, torch.Tensor) and is_traceable_wrapper_subclass(value)


@dataclass(frozen=True)
class Parts:
    """A tensor of a subclass in a graph.

    Attributes:
        like: the tensor, of fake inner tensors.
        inner: by attribute, the node of an inner tensor, or the parts of one that is of a subclass.
    """

    like: torch.Tensor
    inner: dict[str, fx.Node | Parts]

    def nodes(self) -> Iterator[fx.Node]:
        """List the nodes of all inner tensors."""
        for part in self.inner.values():
            if isinstance(part, Parts):
                yield from part.nodes()
            else:
                yield part

    def made_of(self, values: Iterator[torch.Tensor]) -> torch.Tensor:
        """Put such a tensor together of others in the places of `nodes`."""
        inner = {
            name: part.made_of(values) if isinstance(part, Parts) else next(values)
            for name, part in self.inner.items()
        }
        return put_together(self.like, inner)


def cannot(node: fx.Node, why: str) -> NotTakenApartError:
    """Make the error that says why a node cannot be taken apart, and on which line it is."""
    return NotTakenApartError(why, line_of(node))


@dataclass
class Call:
    """A call of a node with tensors of subclasses.

    Attributes:
        node: says what is called.
        leaves, spec: what it is called with, in which nodes and parts stand for tensors.
        inputs: these nodes, and those of these parts.
    """

    node: fx.Node
    leaves: list[Any]
    spec: Any
    inputs: tuple[fx.Node, ...]
    _shape: list[Any] = field(default_factory=list)

    def key(self, described: Callable[[torch.Tensor], Hashable]) -> Hashable:
        """Return something that is equal for calls whose traces are equal."""
        numbers = {node: number for number, node in enumerate(self.inputs)}

        def leaf_key(leaf: Any) -> Hashable:
            if isinstance(leaf, fx.Node):
                return "node", numbers[leaf]
            if isinstance(leaf, Parts):
                return "parts", described(leaf.like), tuple(numbers[n] for n in leaf.nodes())
            return type(leaf), repr(leaf)

        values = [node.meta["example_value"] for node in self.inputs]
        memory = [storage_of(v) if isinstance(v, torch.Tensor) else None for v in values]
        return (
            (self.node.op, self.node.target, str(self.spec)),
            tuple(map(leaf_key, self.leaves)),
            tuple(map(described_value, values)),
            tuple(v.storage_offset() if isinstance(v, torch.Tensor) else None for v in values),
            tuple(map(memory.index, memory)),
            modes_of_torch(),
        )

    def traced(self, codes: set[types.CodeType]) -> tuple[fx.GraphModule, list[Any]]:
        """Trace it, and say what its result is of; the code that runs is added to `codes`."""
        from torch.fx.experimental.proxy_tensor import make_fx

        values = [node.meta["example_value"] for node in self.inputs]
        # Apart from what operators such as `t_` do to them, which is done when they are inlined.
        examples = [v.detach() if isinstance(v, torch.Tensor) else v for v in values]
        try:
            with recording_code(codes):
                traced = make_fx(self._run)(*examples)
        except NotTakenApartError:
            raise
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise cannot(self.node, f"what it calls cannot be traced: {said:.300}") from error
        return traced, self._shape

    def _run(self, *values: Any) -> Any:
        given = dict(zip(self.inputs, values, strict=True))
        made = {}
        for leaf in self.leaves:
            if isinstance(leaf, Parts) and id(leaf) not in made:
                made[id(leaf)] = leaf.made_of(iter([given[node] for node in leaf.nodes()]))
        leaves = [
            given[leaf] if isinstance(leaf, fx.Node) else made.get(id(leaf), leaf)
            for leaf in self.leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        target: Callable[..., Any]
        if self.node.op == "call_method":
            target = getattr(args[0], str(self.node.target))
            args = args[1:]
        else:
            target = self.node.target  # type: ignore[assignment]
        result = target(*args, **kwargs)
        for leaf in self.leaves:
            if isinstance(leaf, Parts):
                _require_same(self.node, leaf, made[id(leaf)], given)
        returned: list[torch.Tensor] = []
        self._shape = [pytree.tree_map(lambda value: _taken(value, returned), result)]
        return returned


class Taken:
    """A place in the result of a call: of a subclass, of a tensor, or a constant."""

    def __init__(self, value: Any, inner: dict[str, Taken] | None, is_node: bool) -> None:
        self._value = value
        self._inner = inner
        self._is_node = is_node

    def of(self, values: Iterator[Any]) -> Any:
        """Take what stands in this place from the values that a trace returned."""
        if self._inner is not None:
            return Parts(self._value, {n: part.of(values) for n, part in self._inner.items()})
        return next(values) if self._is_node else self._value


def _taken(value: Any, returned: list[Any]) -> Taken:
    if is_wrapper(value):
        inner = {name: _taken(getattr(value, name), returned) for name in inner_names(value)}
        return Taken(value, inner, False)
    if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat | torch.SymBool):
        returned.append(value)
        return Taken(None, None, True)
    return Taken(value, None, False)


def _require_same(node: fx.Node, parts: Parts, made: Any, given: dict[fx.Node, Any]) -> None:
    """Raise if an operator gave a tensor of a subclass other inner tensors."""
    for name, part in parts.inner.items():
        inner = getattr(made, name, None)
        if isinstance(part, Parts):
            _require_same(node, part, inner, given)
        elif inner is not given[part]:
            raise cannot(node, f"an operator replaces its {name}")
