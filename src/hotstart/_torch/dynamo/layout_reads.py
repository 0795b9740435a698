"""Record where traced code asks for the layout of a tensor.

Dynamo answers `x.stride()`, `x.is_contiguous()` and `x.contiguous() is x` from its fake tensors and
leaves neither a guard nor a node; fake tensors cannot tell, since torch asks them all the time.
Private names, of torch 2.11 to 2.15: `variables.tensor.TensorVariable.call_method` and
`.tp_getattro_impl` (`.var_getattr` up to 2.13), which answer what is asked of a tensor, and
`variables.builtin.extract_fake_example_value`, which the handler of `is` calls for either side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import fx

from hotstart._torch.graphs.source_lines import user_line
from hotstart._torch.in_between import in_between

Asked = Literal["contiguity", "strides", "identity", "base"]

_METHODS: Mapping[str, Asked] = {
    "is_contiguous": "contiguity",
    "stride": "strides",
    "dim_order": "strides",
}


class Step(NamedTuple):
    """A node as it was when its layout was asked for; Dynamo may remove it later.

    Attributes:
        source: Dynamo's name of the input, for a placeholder.
    """

    op: str
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    source: str


class LayoutRead(NamedTuple):
    """One question.

    Attributes:
        asked: contiguity in some memory format, strides as numbers, whether two tensors are one
            object, or the tensor a view was made of.
        nodes: the nodes it was about: one, or two for an identity.
        line: the user's file, line and source.
    """

    asked: Asked
    nodes: tuple[fx.Node, ...]
    line: str


@dataclass
class LayoutReads:
    """The questions of a trace about layouts, with the nodes that compute the tensors."""

    reads: list[LayoutRead] = field(default_factory=list)
    steps: dict[fx.Node, Step] = field(default_factory=dict)

    def note(self, asked: Asked, *nodes: fx.Node) -> None:
        """Keep a question, and every node that its tensor is computed from."""
        stack = list(torch._guards.TracingContext.extract_stack())
        self._keep(LayoutRead(asked, nodes, user_line(stack)))

    def repeat(self, number: int, counterparts: Mapping[fx.Node, fx.Node]) -> None:
        """Keep a question of this trace once more, about other nodes."""
        asked, nodes, line = self.reads[number]
        self._keep(LayoutRead(asked, tuple(counterparts.get(n, n) for n in nodes), line))

    def _keep(self, read: LayoutRead) -> None:
        self.reads.append(read)
        waiting = list(read.nodes)
        while waiting:
            node = waiting.pop()
            if node not in self.steps:
                source = getattr(node.meta.get("grapharg"), "source", None)
                name = "" if source is None else str(source.name)
                self.steps[node] = Step(node.op, node.target, node.args, dict(node.kwargs), name)
                waiting += node.all_input_nodes


@contextlib.contextmanager
def recording_layout_reads() -> Iterator[LayoutReads]:
    """Record what traced code asks of layouts."""
    from torch._dynamo.variables import builtin, tensor

    found = LayoutReads()
    variable: Any = tensor.TensorVariable
    getting = "tp_getattro_impl" if "tp_getattro_impl" in vars(variable) else "var_getattr"
    sides: list[fx.Node] = []

    def call_method(call: Any, variable: Any, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in _METHODS:
            found.note(_METHODS[name], variable.as_proxy().node)
        return call(variable, tx, name, args, kwargs)

    def get_attribute(get: Any, variable: Any, tx: Any, name: str) -> Any:
        if name == "_base":
            found.note("base", variable.as_proxy().node)
        return get(variable, tx, name)

    def one_side(example_of: Any, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
        sides.append(node)
        if len(sides) == 2:
            found.note("identity", *sides)
            sides.clear()
        return example_of(node, *args, **kwargs)

    with (
        in_between(variable, "call_method", call_method),
        in_between(variable, getting, get_attribute),
        in_between(builtin, "extract_fake_example_value", one_side),
    ):
        yield found
