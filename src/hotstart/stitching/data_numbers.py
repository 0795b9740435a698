"""Write what reads numbers of the tensors that nodes make, and what checks them."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from hotstart._torch.dynamo.data_numbers import assertion_of_number
from hotstart._torch.graphs.source_lines import line_of, without_folders
from hotstart.partition import Graph
from hotstart.stitching.emit import Emitter


class DataNumbers:
    """Writes statements that bind the numbers of a graph which depend on data to variables.

    Args:
        graph: the graph.
        emitter: gets the variables.

    Attributes:
        makers: the nodes whose values are read.
    """

    def __init__(self, graph: Graph, emitter: Emitter) -> None:
        self._graph = graph
        self._emitter = emitter
        self.makers = {*graph.numbers, *(fact.node for fact in graph.captured.facts)}

    def read(self, node: fx.Node) -> Iterator[str]:
        """Write what follows the statement of a node, but for checks."""
        if node not in self.makers:
            return
        made = self._emitter.variable(node)
        for number in self._graph.numbers.get(node, ()):
            name = self._emitter.names.new(number.name)
            self._emitter.number(number.symbol, name)
            source = f"int({made})" if number.is_checked else number.source.format(made)
            yield f"{name} = {source}"

    def checks(self, node: fx.Node) -> Iterator[str]:
        """Write what checks the numbers of a node."""
        if node not in self.makers:
            return
        for number in self._graph.numbers.get(node, ()):
            if number.is_checked:
                yield self._check(node, f"{self._emitter.value(number.symbol)} >= 0")
        made = self._emitter.variable(node)
        for fact in self._graph.captured.facts:
            if fact.node is node:
                wanted = self._emitter.value(self._graph.expression(fact.equals))
                yield self._check(node, f"{fact.source.format(made)} == {wanted}")

    def _check(self, node: fx.Node, condition: str) -> str:
        function = self._emitter.function(assertion_of_number())
        where = without_folders(line_of(node) or node.name)
        message = f"expected {condition}, as the model needs it: {where}"
        return f"{function}({condition}, {message!r})"
