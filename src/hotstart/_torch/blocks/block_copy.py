"""Take the nodes of a traced block down again, for another block.

Private names, of torch 2.11 to 2.15: `variables.builder.VariableBuilder` and `wrap_fx_proxy`, by
which Dynamo takes in weights and results; `utils.get_fake_value` and `set_example_value`, which
give a node its value while tracing; `guards.install_guard`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from hotstart._torch.blocks.block_call import BlockCall, Given, metadata
from hotstart._torch.blocks.block_names import Counterparts, stack_name
from hotstart._torch.dynamo.layout_reads import LayoutReads


class Copy:
    """Takes down a traced call again, for another block."""

    def __init__(
        self,
        earlier: BlockCall,
        block: Any,
        tx: Any,
        given: Given,
        counterparts: Counterparts,
        layout_reads: LayoutReads,
    ) -> None:
        self._earlier = earlier
        self._tx = tx
        self._counterparts = counterparts
        self._layout_reads = layout_reads
        self._outer = dict(tx.nn_module_stack)
        self._counted = dict(tx.num_calls)
        self._nodes = dict(zip(earlier.given.nodes, given.nodes, strict=True))
        self._results: dict[fx.Node, Any] = {}
        self._names = (stack_name(earlier.source), stack_name(block.source))

    def made(self, weights: Mapping[fx.Node, Any], guards: list[Any]) -> Any:
        """Add the nodes and guards; returns what the call returns, as Dynamo's variable.

        Args:
            weights: by placeholder that the earlier call read, the source and value of this one's.
            guards: those of this call.
        """
        from torch._dynamo.guards import install_guard

        install_guard(*guards)
        for placeholder in sorted(weights):  # in the order of the graph
            self._nodes[placeholder] = self._placeholder(placeholder, weights)
        returned = set(self._earlier.returned.nodes)
        for node in self._earlier.nodes:
            for read in node.all_input_nodes:
                self._nodes.setdefault(read, read)  # the same for both
            self._nodes[node] = self._again(node, node in returned)
        self._count_calls()
        for number in self._earlier.layout_reads:
            self._layout_reads.repeat(number, self._nodes)
        return self._result(self._earlier.returned.tree)

    def _placeholder(self, node: fx.Node, weights: Mapping[fx.Node, Any]) -> fx.Node:
        from torch._dynamo.variables.builder import VariableBuilder

        source, value = weights[node]
        made: fx.Node = VariableBuilder(self._tx, source)(value).as_proxy().node
        if not made.users and "nn_module_stack" in node.meta:
            made.meta["nn_module_stack"] = self._stack(node)
            made.meta["stack_trace"] = node.meta.get("stack_trace")
        return made

    def _again(self, node: fx.Node, returned: bool) -> fx.Node:
        from torch._dynamo.utils import get_fake_value, set_example_value
        from torch._dynamo.variables.builder import wrap_fx_proxy

        if node.meta.get("unbacked_bindings"):
            raise NotRepeatedError(f"{node.name} makes a number, which has no second symbol")
        output = self._tx.output
        made: fx.Node = output.graph.create_node(
            node.op,
            node.target,
            fx.map_arg(node.args, self._nodes.__getitem__),
            fx.map_arg(node.kwargs, self._nodes.__getitem__),
        )
        made.meta["nn_module_stack"] = self._stack(node)
        made.meta["source_fn_stack"] = [(made.name, node.meta["source_fn_stack"][-1][1])]
        made.meta["stack_trace"] = node.meta.get("stack_trace")
        if returned:
            proxy = fx.Proxy(made, output.root_tracer)
            self._results[made] = wrap_fx_proxy(self._tx, proxy)
        elif node in self._earlier.fresh:
            set_example_value(made, _another(node.meta["example_value"]))
        else:
            set_example_value(made, get_fake_value(made, self._tx))
        _rename_as(node, made)
        if metadata(made) != metadata(node):
            raise NotRepeatedError(f"{node.name} and {made.name}")
        return made

    def _stack(self, node: fx.Node) -> dict[str, Any]:
        inner = list(node.meta["nn_module_stack"].items())[self._earlier.outside :]
        stack = dict(self._outer)
        for key, (path, cls) in inner:
            identity, _, _ = key.partition("@")
            module = self._counterparts.modules.get(int(identity))
            moved, counted = self._moved(path), self._count(key, path)
            named = identity if module is None else str(id(module))
            stack[f"{named}@{counted}" if counted else named] = moved, cls
        return stack

    def _count(self, key: str, path: str) -> int:
        """Count the calls of the module before this one."""
        _, _, number = key.partition("@")
        since = int(number or 0) - self._earlier.before.get(path, 0)
        counted: int = self._counted.get(self._moved(path), 0)
        return counted + since

    def _moved(self, path: str) -> str:
        old, new = self._names
        return new + path.removeprefix(old) if path == old or path.startswith(old + ".") else path

    def _count_calls(self) -> None:
        for path, number in self._earlier.after.items():
            since = number - self._earlier.before.get(path, 0)
            if since:
                moved = self._moved(path)
                self._tx.num_calls[moved] = self._counted.get(moved, 0) + since

    def _result(self, tree: Any) -> Any:
        from torch._dynamo.variables import ConstantVariable, TupleVariable

        kind, value = tree
        if kind == "constant":
            return ConstantVariable.create(value[1])
        if kind == "tuple":
            return TupleVariable([self._result(each) for each in value])
        return self._results[self._nodes[self._earlier.returned.nodes[value]]]


class NotRepeatedError(Exception):
    """A block's nodes computed something else than those that they repeat."""


def _another(fake: FakeTensor) -> FakeTensor:
    """A fake tensor as another is, in memory of its own."""
    with fake.fake_mode:
        made = torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype, device=fake.device)
    assert isinstance(made, FakeTensor)
    return made


def _rename_as(node: fx.Node, made: fx.Node) -> None:
    """Give a node the name of a user's variable, if the one that it repeats has it."""
    base, own = (re.sub(r"_\d+$", "", each.name) for each in (node, made))
    if base != own:
        made._rename(base)
