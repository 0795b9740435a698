"""Random graphs, and where to cut them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import torch
from hypothesis import assume
from torch import fx
from torch.nn import functional as F  # noqa: N812

from hotstart._torch.graphs.symbols import fake_mode


def combine(tree: dict[str, Any], *more: Any, scale: float = 1.0) -> torch.Tensor:
    """Takes tensors nested in dicts, lists and tuples."""
    first, rest = tree["first"], tree["rest"]
    return (first + sum(t.sum() for t in rest[0]) - rest[1]["deep"].mean() + len(more)) * scale


def pair(x: torch.Tensor, *, split: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a tuple; takes a slice by keyword."""
    return x[split], x.sum()


@dataclass
class Builder:
    """A graph under construction; every node's value is known as a fake tensor."""

    draw: Callable[..., Any]
    graph: fx.Graph = field(default_factory=fx.Graph)
    tensors: list[fx.Node] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)

    def value(self, node: fx.Node) -> Any:
        return node.meta["example_value"]

    def input(self, shape: tuple[int, ...]) -> fx.Node:
        node = self.graph.placeholder(f"x{len(self.tensors)}")
        node.meta["example_value"] = torch.empty(shape)
        self.tensors.append(node)
        return node

    def call(self, op: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        real = fx.node.map_arg((args, kwargs), self.value)
        if op == "call_method":
            result = getattr(real[0][0], target)(*real[0][1:], **real[1])
        else:
            result = target(*real[0], **real[1])
        node = self.graph.create_node(op, target, args, kwargs)
        node.meta["example_value"] = result
        if isinstance(result, torch.Tensor):
            self.tensors.append(node)
        if target not in (operator.getitem, operator.setitem):
            self.targets.append(target)
        return node

    def function(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self.call("call_function", target, *args, **kwargs)

    def method(self, target: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.call("call_method", target, *args, **kwargs)

    def pick(self, *, dims: int | None = None, like: fx.Node | None = None) -> fx.Node:
        """A tensor made so far; at least one-dimensional and not empty."""
        shape = None if like is None else self.value(like).shape
        fitting = [
            node
            for node in self.tensors
            if self.value(node).numel()
            and self.value(node).ndim >= (dims or 1)
            and self.value(node).is_floating_point()
            and (shape is None or self.value(node).shape == shape)
        ]
        assume(fitting)
        return self.draw(st.sampled_from(fitting))

    def dim(self, node: fx.Node) -> int:
        rank = self.value(node).ndim
        return self.draw(st.integers(-rank, rank - 1))


def unary(b: Builder) -> None:
    x = b.pick()
    target = b.draw(
        st.sampled_from(
            [torch.relu, F.gelu, torch.sin, operator.neg, "abs", "tanh", "contiguous", "clone",
             torch.ops.aten.exp.default, torch.ops.aten.cos]
        )
    )  # fmt: skip
    b.method(target, x) if isinstance(target, str) else b.function(target, x)


def infix(b: Builder) -> None:
    x = b.pick()
    y = b.draw(st.sampled_from([b.pick(like=x), 2, -1.5, 0.1]))
    function = b.draw(st.sampled_from([operator.add, operator.sub, operator.mul, operator.truediv]))
    b.function(function, *b.draw(st.permutations([x, y])))


def keywords(b: Builder) -> None:
    x = b.pick()
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.function(torch.add, x, b.pick(like=x), alpha=b.draw(st.sampled_from([2, -0.5])))
    elif kind == 1:
        b.method("sum", x, dim=(b.dim(x),), keepdim=b.draw(st.booleans()), dtype=torch.float32)
    elif kind == 2:
        b.function(F.softmax, x, dim=b.dim(x), dtype=None)
    elif kind == 3:
        b.function(torch.clamp, input=x, min=-float("inf"), max=b.draw(st.floats(0, 2)))
    else:
        b.function(torch.zeros_like, x, memory_format=torch.contiguous_format)


def in_place(b: Builder) -> None:
    x = b.pick()
    if b.draw(st.booleans()):
        x = b.method("clone", x)
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.method("add_", x, 1.5)
    elif kind == 1:
        b.function(operator.imul, x, -2)
    elif kind == 2:
        b.function(torch.relu_, x)
    elif kind == 3:
        index = b.draw(st.sampled_from([0, slice(0, 1), (..., 0), -1]))
        b.function(operator.setitem, x, index, b.draw(st.sampled_from([0.25, -3])))
    else:
        view = b.function(operator.getitem, x, 0)
        b.method("mul_", view, 3)


def index(b: Builder) -> None:
    x = b.pick()
    forms = [
        0, -1, slice(None), slice(0, 1), slice(None, None, 2), ..., None, (..., None),
        (None, 0), [0, 0], (..., slice(0, 1)), (..., 0),
    ]  # fmt: skip
    if b.value(x).ndim > 1:
        forms += [(slice(None), 0), (0, -1), (slice(0, 1), None, ..., 0), ([0, 0], slice(0, 1))]
    b.function(operator.getitem, x, b.draw(st.sampled_from(forms)))


def tuples(b: Builder) -> None:
    x = b.pick()
    kind, dim = b.draw(st.integers(0, 6)), b.dim(x)
    made = [
        lambda: b.function(torch.chunk, x, 2, dim=dim),
        lambda: b.method("split", x, 1, dim),
        lambda: b.function(torch.topk, x, 1, dim=dim),
        lambda: b.function(torch.max, x, dim),
        lambda: b.method("unbind", x, dim),
        lambda: b.function(torch.aminmax, x, dim=dim, keepdim=True),
        lambda: b.function(pair, x, split=slice(0, b.draw(st.sampled_from([None, 1])))),
    ][kind]()
    length = len(b.value(made))
    for item in b.draw(st.lists(st.integers(-length, length - 1), max_size=3)):
        b.function(operator.getitem, made, item)
    if kind < 2 and b.draw(st.booleans()):
        b.function(torch.cat, made, dim)


def nested(b: Builder) -> None:
    x, y, z = b.pick(), b.pick(), b.pick()
    kind = b.draw(st.integers(0, 3))
    if kind == 0:
        b.function(torch.cat, [x, b.pick(like=x)], dim=b.dim(x))
    elif kind == 1:
        b.function(torch.stack, tensors=(x, b.pick(like=x), x))
    elif kind == 2:
        b.function(combine, {"first": x, "rest": ([y, x], {"deep": z})}, (y, [z]), scale=0.5)
    else:
        b.function(torch.where, b.function(operator.gt, x, 0), x, b.pick(like=x))


def shapes(b: Builder) -> None:
    x = b.pick(dims=2)
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.method("transpose", x, 0, 1)
    elif kind == 1:
        b.method("reshape", x, (-1,))
    elif kind == 2:
        b.function(torch.matmul, x, b.method("transpose", x, -1, -2))
    elif kind == 3:
        b.method("unsqueeze", x, b.dim(x))
    else:
        b.function(torch.empty_like, x)  # never read: its contents are undefined
        b.tensors.pop()


STEPS = [unary, infix, keywords, in_place, index, tuples, nested, shapes]


@dataclass(frozen=True)
class Case:
    """A random graph, what it returns, and where to cut it."""

    graph: fx.Graph
    returned: tuple[fx.Node, ...]
    split_on: tuple[Any, ...]

    def module(self) -> fx.GraphModule:
        """The graph as a module of its own, before hotstart touches it."""
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.graph, copied)
        graph.output(tuple(copied[node] for node in self.returned))
        return fx.GraphModule({}, graph)


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    builder = Builder(draw)
    with fake_mode():
        for _ in range(draw(st.integers(1, 3))):
            builder.input(draw(st.sampled_from([(4,), (2, 3), (3, 2), (2, 3, 2), (1, 4)])))
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10)):
            step(builder)
    assume(builder.targets)
    returned = draw(st.lists(st.sampled_from(builder.tensors), min_size=1, max_size=4))
    split_on = draw(st.lists(st.sampled_from(builder.targets), max_size=4, unique_by=id))
    return Case(builder.graph, tuple(returned), tuple(split_on))
