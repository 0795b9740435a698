"""Describe what a call returns and changes, found by replaying Dynamo's bytecode.

Dynamo generates bytecode that calls the graph and builds the model's own result from what the
graph returns. It is run here once with stand-ins for the graph's outputs; where they end up in
the result is the structure of the result. Attributes of modules and containers of the caller's are
compared with what they held before.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo.full_graph import FullGraph
from hotstart._torch.dynamo.recurrent import is_list_of_weights
from hotstart._torch.graphs.symbols import Symbols, axis_symbol, fake_mode, make_symbols
from hotstart._torch.running.modes import function_mode
from hotstart.capture.arguments import Arguments, example_tensor
from hotstart.capture.attributes import ModuleAttributes
from hotstart.capture.captured import AttributeUpdate, ContainerChange
from hotstart.capture.containers import PassedContainers
from hotstart.capture.results import Leaves, describe_result
from hotstart.capture.weight_table import WeightTable
from hotstart.errors import CaptureError
from hotstart.first_call.memo import Memo
from hotstart.first_call.snapshot import Snapshot
from hotstart.model import ModelIndex
from hotstart.records.nested import Slot, Tree
from hotstart.records.trees import slots

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True)
class Outputs:
    """Result of a call, and the state that it changes.

    Attributes:
        result: the tree that a call returns.
        updates: the attributes it replaces.
        changes: the containers of the caller's that it changes.
        sizes: expressions over axis symbols, and nodes that are numbers, that `result` needs and
            the graph does not return; in the tree they are numbered as if they followed the graph's
            own outputs.
        unused: outputs of the graph, by number, that are in none of these, but in a memo.
    """

    result: Tree
    updates: tuple[AttributeUpdate, ...]
    changes: tuple[ContainerChange, ...]
    sizes: tuple[sympy.Expr | fx.Node, ...]
    unused: frozenset[int] = frozenset()


def describe_outputs(
    index: ModelIndex,
    traced: FullGraph,
    returned: Sequence[str | None],
    written: Mapping[int, Slot],
    reals: Mapping[int, fx.Node],
    arguments: Arguments,
    fixed: Mapping[str, int],
    weights: WeightTable,
    memo: Memo,
) -> Outputs:
    """Describe what a call returns, the attributes it replaces and the containers it changes.

    The bytecode is run with arguments of symbolic sizes, so that what it reads from them itself,
    such as a whole `torch.Size`, is recognised for what it is.

    Args:
        index: of the model that was traced; its attributes are put back as they were.
        traced: what Dynamo made of it.
        returned: for each output of the graph, the expression of an integer, or None for a tensor.
        written: outputs that are an argument or weight itself, which the graph has written to.
        reals: outputs that are tensors of a number, with the node that the number is of.
        arguments: the arguments it was traced with.
        fixed: axes that were traced at one size.
        weights: the table of tensors the graph reads.
        memo: what a program leaves as it is.

    Raises:
        CaptureError: the result holds something that cannot be rebuilt, or the call changes Python
            state other than attributes of modules, and arguments that are lists, dicts or objects
            that are their attributes.
    """
    symbols, tensors = _symbolic_tensors(arguments, fixed)
    axes = {symbol: axis_symbol(axis) for axis, symbol in symbols.by_name.items()}
    values = arguments.values(tensors)
    call = arguments.passed(values)
    containers = PassedContainers(arguments, values)
    leaves = Leaves(returned, written, reals, axes, tensors, containers.slot, weights)
    attributes = ModuleAttributes(index)
    lists = _lists_of_weights(index)
    changed = traced.objects_changed(*call).items()
    others = {name: Snapshot(obj) for name, obj in changed if id(obj) not in lists}
    try:
        result = _replay(traced, call, leaves)
        changes = containers.changes(leaves.slot)
        _refuse_lost(traced, attributes, containers, others, memo)
        replaced = attributes.replaced(memo)
    finally:
        attributes.restore()
        for other in others.values():
            other.put_back()
    updates = [
        AttributeUpdate(
            path, name, describe_result(value, f"{path}.{name}".removeprefix("."), leaves.slot)
        )
        for path, name, value in replaced
        if not is_list_of_weights(index.modules[path], name)
    ]
    described = describe_result(result, "the result", leaves.slot)
    trees = (described, *(u.value for u in updates), *(c.contents for c in changes))
    used = {slot.index for tree in trees for slot in slots(tree) if slot.kind in ("out", "size")}
    unused = frozenset(range(len(returned))) - used - {*written} if memo.names else frozenset()
    return Outputs(described, tuple(updates), changes, tuple(leaves.sizes), unused)


def _lists_of_weights(index: ModelIndex) -> set[int]:
    """The lists of weights that recurrent layers make anew in every call, by identity."""
    return {
        id(held)
        for module in index.modules.values()
        for name, held in vars(module).items()
        if is_list_of_weights(module, name)
    }


def _replay(traced: FullGraph, call: tuple[tuple[Any, ...], dict[str, Any]], leaves: Leaves) -> Any:
    """The result of a call whose graph returns stand-ins."""
    try:
        with function_mode(leaves.views):
            return traced.replay(lambda *_: tuple(leaves.outputs), *call)
    except RuntimeError as error:  # the stand-ins are empty, so `.item()` fails
        raise CaptureError(
            "forward returns a number computed from tensor sizes that is not an integer. "
            "Return the sizes and compute it outside."
        ) from error


def _refuse_lost(
    traced: FullGraph,
    attributes: ModuleAttributes,
    containers: PassedContainers,
    before: Mapping[str, Snapshot],
    memo: Memo,
) -> None:
    """Raise if a call changes an object in a way that no record describes."""
    touched = [
        traced.plain_name(name)
        for name, other in before.items()
        if not attributes.covers(other.obj)
        and not memo.explains(other)
        and _is_lost(other, containers)
    ]
    if touched:
        raise CaptureError(
            f"forward changes Python state that outlives the call ({', '.join(touched)}). A "
            "program computes tensors only: move the change out of forward, or call the model "
            "once before it is compiled if that fills a cache."
        )


def _is_lost(before: Snapshot, containers: PassedContainers) -> bool:
    """Tell whether no other record describes a change of an object."""
    if before.changed():
        return containers.slot(before.obj) is None
    # Dynamo's bytecode leaves out changes of the order alone.
    return isinstance(before.obj, collections.OrderedDict)


def _symbolic_tensors(
    arguments: Arguments, fixed: Mapping[str, int]
) -> tuple[Symbols, list[torch.Tensor]]:
    """Fake arguments with a symbol for every axis that is not fixed."""
    bounds = {
        dim.name: (dim.min, dim.max, arguments.example_sizes[dim.name])
        for dim in arguments.axes
        if dim.name not in fixed
    }
    symbols = make_symbols(bounds)
    sizes = {axis: symbols.integer(symbol) for axis, symbol in symbols.by_name.items()}
    with fake_mode(symbols.env):
        return symbols, [example_tensor(spec, {**sizes, **fixed}) for spec in arguments.tensors]
