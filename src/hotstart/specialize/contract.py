"""Make the contract of a call, and the requirements on the model, from all graphs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from msgspec.structs import replace

from hotstart._torch.graphs.values import storage_of
from hotstart._torch.graphs.writes import was_mutated
from hotstart._torch.running.modes import autocast_state
from hotstart.capture.captured import Captured, example_of
from hotstart.capture.lasting import require_lasting
from hotstart.capture.weight_table import WeightTable
from hotstart.dtypes import name_of
from hotstart.guards.collect import merged
from hotstart.guards.structure import Look
from hotstart.model import Model, ModelIndex
from hotstart.partition.operator_names import foreign_operators
from hotstart.records.artifact import Requirements
from hotstart.records.contract import Contract
from hotstart.records.guards import Seen
from hotstart.records.trees import passed_on
from hotstart.runtime.shared_memory import Span
from hotstart.runtime.tensors import TensorMemory, bytes_in_storage
from hotstart.specialize.defaults import reads_default_device, reads_default_dtype
from hotstart.specialize.trace import TracedCall

_OF_THE_CALL = ("closure", "self", "target")


def make_requirements(
    index: ModelIndex, weights: WeightTable, calls: Sequence[TracedCall]
) -> Requirements:
    """Describe what the model must bring, from what all graphs read and write.

    Raises:
        CaptureError: one graph sets on a module what another has read.
    """
    graphs = [graph.captured for call in calls for graph in call.graphs]
    require_lasting(index, graphs, weights.specs)
    written = {slot for graph in graphs for kind, slot in _written(graph) if kind == "weight"}
    read = merged(graph.read.modules for graph in graphs)
    # By their texts, since 1, 1.0 and True are equal and not the same.
    kinds = {repr(kind): kind for kind in read.values()}
    numbers = {text: number for number, text in enumerate(kinds)}
    look = Look()
    operators = {name for graph in graphs for name in foreign_operators(graph.module)}
    names = {name for spec in weights.specs for name in (spec.name, *spec.ties)}
    names |= {name for one in weights.taken_apart for name in (one.name, *one.ties)}
    parameters = {place.name for place in index.places if place.kind == "parameter"}
    specs = [replace(spec, mutated=slot in written) for slot, spec in enumerate(weights.specs)]
    overlaps = _StorageMemory().overlaps_of(specs, weights.tensors)
    return Requirements(
        weights=tuple(replace(s, overlaps=o) for s, o in zip(specs, overlaps, strict=True)),
        unread=tuple(sorted(parameters - names)),
        modes=tuple(sorted({mode for graph in graphs for mode in graph.modes})),
        kinds=tuple(kinds.values()),
        modules=tuple((path, numbers[repr(kind)]) for path, kind in sorted(read.items())),
        hooks=look.global_hooks(),
        operators=tuple((name, look.operator(name)) for name in sorted(operators)),
        seen=_seen(calls),
        groups=weights.groups.specs(
            (call.method, graph.captured.read) for call in calls for graph in call.graphs
        ),
        taken_apart=weights.taken_apart,
        wrappings=weights.wrappings,
    )


def _seen(calls: Sequence[TracedCall]) -> tuple[Seen, ...]:
    """Merge what all graphs read outside of modules, by call where it is the call's own."""
    found = {
        replace(one, name=call.method) if one.start in _OF_THE_CALL else one
        for call in calls
        for graph in call.graphs
        for one in graph.captured.read.seen
    }
    return tuple(sorted(found, key=repr))


def make_contract(model: Model, call: TracedCall) -> Contract:
    """Describe what a call must satisfy, from what its graphs have in common."""
    graphs = [graph.captured for graph in call.graphs]
    written = {index for graph in graphs for kind, index in _written(graph) if kind == "arg"}
    trees = [tree for graph in graphs for tree in graph.trees()]
    dtype = any(map(reads_default_dtype, graphs))
    device = any(map(reads_default_device, graphs))
    changed = tuple(sorted({change.number for graph in graphs for change in graph.changes}))
    return Contract(
        parameters=call.arguments.parameters,
        tensors=call.tensors(),
        axes=call.arguments.axes,
        training=model.training if isinstance(model, torch.nn.Module) else None,
        autocast=autocast_state(),
        mutated_args=tuple(sorted(written)),
        given=passed_on(trees, "arg"),
        objects=tuple(sorted({*passed_on(trees, "object"), *changed})),
        changed=changed,
        default_dtype=name_of(torch.get_default_dtype()) if dtype else None,
        default_device=torch.get_default_device().type if device else None,
    )


def _written(graph: Captured) -> set[tuple[str, int]]:
    """Kind and number of the inputs that a graph writes to."""
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    found: set[tuple[str, int]] = set()
    for node, slot in zip(nodes, graph.inputs, strict=True):
        example = example_of(node)
        if isinstance(example, torch.Tensor) and was_mutated(example):
            found.add((slot.kind, slot.index))
    return found


class _StorageMemory(TensorMemory):
    """Finds the places of tensors in storages, which have no addresses where tensors are fake."""

    @staticmethod
    def span(tensor: torch.Tensor) -> Span:
        """Return where a tensor begins and ends: the number of its storage, and bytes in that."""
        storage = storage_of(tensor)
        begin, end = bytes_in_storage(tensor)
        return (storage, begin), (storage, end)
