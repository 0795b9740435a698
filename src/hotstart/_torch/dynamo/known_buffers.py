"""Let a trace know the numbers that buffers hold, which the graph then checks in every call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def knowing(buffers: Mapping[int, torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Give the fake tensors of some buffers, by identity, the number that they hold.

    Fake tensors compute with such a `constant` until it is written to (2.11 to 2.15); so what is
    computed of these buffers alone is known, `item` and branches included. Before Dynamo leaves out
    inputs that nothing reads, the graph is given a check of each.

    Yields:
        The fake tensors that were made.
    """
    from torch._dynamo.output_graph import OutputGraph
    from torch._dynamo.variables import builder

    made: list[torch.Tensor] = []
    held: dict[int, Any] = {}

    def wrap(wrapped: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        fake = wrapped(value, *args, **kwargs)
        if id(value) in buffers:
            fake.constant = value.detach().clone()
            fake.fake_mode.fake_tensor_converter.add_constant_storage_mapping(fake)
            made.append(fake)
            held[id(fake)] = value.item()
        return fake

    def check(remove: Any, output: Any) -> Any:
        for node in output.graph.find_nodes(op="placeholder"):
            number = held.get(id(node.meta.get("example_value")))
            if number is not None:
                _check(output.graph, node, number)
        return remove(output)

    with (
        in_between(builder, "wrap_to_fake_tensor_and_record", wrap),
        in_between(OutputGraph, "remove_unused_graphargs", check),
    ):
        yield made


def _check(graph: torch.fx.Graph, buffer: torch.fx.Node, number: int) -> None:
    """Have a graph check, before all else, that a buffer holds a number."""
    last = graph.find_nodes(op="placeholder")[-1]
    with graph.inserting_after(last):
        equal = graph.call_function(torch.eq, (buffer, number))
    equal.meta["example_value"] = buffer.meta["example_value"] == number
    message = f"expected a buffer that still holds {number}, as when the program was built"
    with graph.inserting_after(equal):
        checked = graph.call_function(torch.ops.aten._assert_async.msg, (equal, message))
    checked.meta["example_value"] = None
