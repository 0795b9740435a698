"""A call captured as a graph, with everything around the graph as data: what capture hands on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.utils._pytree as pytree
from torch import fx

from hotstart._torch.dynamo.layout_reads import LayoutReads
from hotstart._torch.graphs.symbols import Condition, equals, expression
from hotstart.capture.idle import IdleNodes
from hotstart.capture.numbers import DataNumber, Fact
from hotstart.guards.collect import ReadInTrace
from hotstart.records.nested import Attributes, Map, Seq, Slot, Tree

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class AttributeUpdate:
    """An attribute of a module that a call replaces, as BatchNorm's counter does in training.

    Attributes:
        owner: path of the module.
        name: the attribute.
        value: what it is set to.
    """

    owner: str
    name: str
    value: Tree

    @property
    def path(self) -> str:
        """The path of the attribute, such as `layers.0.last`."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass(frozen=True)
class ContainerChange:
    """The contents that a call leaves in a container which the caller passed.

    Attributes:
        number: of the container, as in `Slot`.
        contents: all that a list or dict holds afterwards, or the attributes of an object that are
            set.
        removed: the attributes of an object that are deleted.
    """

    number: int
    contents: Seq | Map | Attributes
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captured:
    """One full graph of a model.

    Attributes:
        graph: the graph; its placeholders correspond to `inputs`.
        inputs: for each placeholder, the argument, weight or size (`Slot("size", expr=size)`).
        symbols: what each symbol of the graph's shapes is: an axis, what follows from axes, or a
            number.
        outputs: what a call returns.
        updates: attributes of the model's modules that a call replaces.
        changes: containers that the caller passed and a call changes.
        conditions: everything that was assumed about sizes, over axis symbols.
        fixed: axes that were traced at one size, with that size.
        modes: path and `training` flag of every module whose flag was read.
        read: what else the trace read.
        guarded: conditions on sizes that the caller or the graph checks before any piece that
            depends on them runs, over axis symbols.
        layout_reads: what Python code asked of the layouts of tensors.
        read_arguments: for each node that `layout_reads` starts from, the number of the argument it
            is; -1 if it is no argument.
        numbers: numbers that a call computes from the contents of tensors; `symbols` has them, too.
        facts: equations that the graph checks for other such numbers.
        idle: nodes that eager leaves out where there is nothing to do.
        sides: of all branches on what tensors hold. The graph does not ask again what brings a call
            to it, see `Variant.sides`.
    """

    graph: fx.Graph = field(repr=False)
    module: fx.GraphModule = field(repr=False)
    inputs: tuple[Slot, ...]
    symbols: Mapping[sympy.Symbol, sympy.Expr]
    outputs: Tree
    updates: tuple[AttributeUpdate, ...]
    conditions: tuple[Condition, ...]
    fixed: Mapping[str, int]
    modes: tuple[tuple[str, bool], ...]
    read: ReadInTrace = field(default_factory=ReadInTrace)
    guarded: tuple[sympy.Basic, ...] = ()
    changes: tuple[ContainerChange, ...] = ()
    layout_reads: LayoutReads = field(default_factory=lambda: LayoutReads())
    read_arguments: Mapping[fx.Node, int] = field(default_factory=dict)
    numbers: tuple[DataNumber, ...] = ()
    facts: tuple[Fact, ...] = ()
    idle: tuple[IdleNodes, ...] = ()
    sides: tuple[bool, ...] = ()

    @property
    def axes(self) -> tuple[sympy.Symbol, ...]:
        """The symbols of the axes and numbers that the graph's shapes depend on."""
        found = (sorted(expr.free_symbols, key=str) for expr in self.symbols.values())
        return tuple(dict.fromkeys(itertools.chain.from_iterable(found)))

    def trees(self) -> tuple[Tree, ...]:
        """List the trees that a call returns or leaves in modules and the caller's containers."""
        updates = (update.value for update in self.updates)
        return (self.outputs, *updates, *(change.contents for change in self.changes))

    def expression(self, size: int | torch.SymInt | torch.SymFloat | torch.SymBool) -> sympy.Expr:
        """A size of the graph as an expression over axis symbols."""
        return expression(size).xreplace(dict(self.symbols))

    @property
    def assumed(self) -> tuple[Condition, ...]:
        """The conditions under which the graph stands for the model."""
        sizes = (Condition(equals(a, n), "") for a, n in self.fixed.items())
        return (*sizes, *self.conditions)


def example_of(node: fx.Node) -> Any:
    """The fake value a node had while tracing; None if it had none."""
    return node.meta.get("example_value", node.meta.get("val"))


def tensors_in(value: Any) -> tuple[torch.Tensor, ...]:
    """Every tensor in a value of tuples, lists and dicts."""
    return tuple(t for t in pytree.tree_leaves(value) if isinstance(t, torch.Tensor))
