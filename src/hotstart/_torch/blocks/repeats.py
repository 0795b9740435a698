"""Trace a repeated block once, and take its nodes down again where it is called again.

Dynamo traces a model's layers one by one, though all but the first give what the first gave. Here a
call of a block that is proven to be as an earlier one's adds that one's nodes to the graph, for its
own weights, and its guards; everything that cannot be proven is traced.

Private names, of torch 2.11 to 2.15: `variables.nn_module.UnspecializedNNModuleVariable`, whose
`call_function` is each call of a module, `side_effects.SideEffects`, whose
`check_allowed_side_effect` hears of every change of an object, `builder.VariableBuilder`, whose
`__call__` takes in each object that a trace reads, and `lazy.LazyVariableTracker`, whose `create`
hears of those that it knows already.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from hotstart._torch.blocks.block_call import (
    BlockCall,
    Given,
    UnknownError,
    described,
    fresh_nodes,
    modes_of_torch,
    nodes_since,
    require_repeatable,
    same_given,
)
from hotstart._torch.blocks.block_copy import Copy
from hotstart._torch.blocks.block_names import (
    Counterparts,
    Move,
    guards_beside,
    guards_on,
    moved_guards,
    moved_weights,
)
from hotstart._torch.blocks.block_reads import (
    ObjectsRead,
    known_already,
    met_elsewhere,
    same_objects,
)
from hotstart._torch.dynamo.layout_reads import LayoutReads
from hotstart._torch.dynamo.other_names import OtherNames
from hotstart._torch.in_between import in_between

MOST_TRACES = 8
"""How many calls of one class are kept to compare others with."""


Alike = Callable[[torch.nn.Module, torch.nn.Module], Counterparts | None]
"""Compares two blocks; None if they are not built alike."""


class Repeats:
    """The calls of blocks in one trace.

    Args:
        blocks: modules that may repeat others.
        alike: compares two of them.
        layout_reads: where questions about layouts are noted.
        other_names: where further names of objects are noted.

    Attributes:
        repeated: how many calls were not traced.
    """

    def __init__(
        self,
        blocks: Mapping[int, torch.nn.Module],
        alike: Alike,
        layout_reads: LayoutReads,
        other_names: OtherNames,
    ) -> None:
        self.blocks = blocks
        self.repeated = 0
        self._alike = alike
        self._layout_reads = layout_reads
        self._other_names = other_names
        self._output: Any = None
        self._calls: defaultdict[type, list[BlockCall]] = defaultdict(list)
        self._called = False
        self._objects_changed = False
        self._changed: list[Any] = []
        self._objects = ObjectsRead()

    def note_read(self, builder: Any, value: Any) -> None:
        """Hear that a trace reads an object."""
        self._start_over(builder.tx.output)
        self._objects.note(builder.source, value)

    def note_met(self, value: Any) -> None:
        """Hear that a trace comes by an object, which it may know already."""
        self._objects.note_modules(value)

    def note_change(self, item: Any) -> None:
        """Hear that traced code changes an object, before a block is called or later."""
        from torch._dynamo import variables
        from torch._dynamo.variables import base

        new = base.AttributeMutationNew, base.ValueMutationNew
        if isinstance(item, variables.TensorVariable):
            self._objects_changed = True
        elif not isinstance(item.mutation_type, new):
            self._changed.append(getattr(item, "source", None))
            self._objects_changed |= self._called or self._changed[-1] is None

    def call(self, block: Any, tx: Any, args: Any, kwargs: Any, trace: Callable[[], Any]) -> Any:
        """The result of a call of a block, traced or repeated."""
        self._start_over(tx.output)
        self._called = True
        try:
            given = described((tuple(args), kwargs))
        except UnknownError:
            return trace()
        if not self._may_repeat(block, tx):
            return trace()
        modes = (
            *modes_of_torch(),
            tx.symbolic_torch_function_state.torch_function_subclass_enabled,
        )
        for earlier in self._calls[type(block.value)]:
            result = self._repeat(earlier, block, tx, given, modes)
            if result is not None:
                self.repeated += 1
                return result
        return self._traced(block, tx, given, modes, trace)

    def _start_over(self, output: Any) -> None:
        """Forget everything if Dynamo does."""
        if self._output is not output:
            self._output = output
            self._called = self._objects_changed = False
            self._changed.clear()
            self._calls.clear()
            self._objects = ObjectsRead()

    def _may_repeat(self, block: Any, tx: Any) -> bool:
        return (
            not self._objects_changed
            and block.source is not None
            and tx.output.current_tracer.parent is None
            and not tx.symbolic_torch_function_state.mode_stack
            and torch._C._functorch.peek_interpreter_stack() is None
        )

    def _traced(
        self, block: Any, tx: Any, given: Given, modes: tuple[Any, ...], trace: Callable[[], Any]
    ) -> Any:
        """Trace a call, and keep it if another can be the same."""
        last = tx.output.graph._root.prev  # the root itself, while there is no node
        asked = len(self._layout_reads.reads)
        before, outside = dict(tx.num_calls), len(tx.nn_module_stack)
        known = self._objects.position
        result = trace()
        if len(self._calls[type(block.value)]) >= MOST_TRACES or not self._may_repeat(block, tx):
            return result
        nodes = tuple(nodes_since(last))
        with contextlib.suppress(UnknownError):
            if not self._objects.modules_since(known) <= set(block.value.modules()):
                return result
            reads = self._objects.of(block.source)
            returned = described(result)
            require_repeatable(nodes, given, returned)
            call = BlockCall(
                block=block.value,
                source=block.source,
                given=given,
                modes=modes,
                nodes=nodes,
                returned=returned,
                outside=outside,
                before=before,
                after=dict(tx.num_calls),
                layout_reads=range(asked, len(self._layout_reads.reads)),
                guards=tuple(guards_on(block.source, tx.output)),
                reads=reads,
                weights_read=self._objects.has_tensors_before(known, reads),
                fresh=frozenset(fresh_nodes(nodes)),
            )
            self._calls[type(block.value)].append(call)
        return result

    def _repeat(
        self, earlier: BlockCall, block: Any, tx: Any, given: Given, modes: tuple[Any, ...]
    ) -> Any:
        """The result of a call that is as an earlier one; None if that is not known."""
        if earlier.modes != modes or not same_given(earlier.given, given):
            return None
        counterparts = self._alike(earlier.block, block.value)
        if counterparts is None:
            return None
        move = Move(earlier.source, block.source)
        if move(earlier.source) is None or self._changed_in(earlier.source, block.source):
            return None
        guards = moved_guards(earlier, move, tx.output)
        if guards is None:
            return None
        reads = self._same_reads(earlier, block, move, counterparts, tx.output)
        if reads is None:
            return None
        weights = moved_weights(earlier, given, move, counterparts, tx.output)
        if weights is None:
            return None
        if earlier.weights_read and not _tracked(weights, tx.output):
            return None
        for source, value in reads:
            self._objects.note(source, value)
        known = known_already(earlier.reads, reads, tx.output)
        for source, first in known.items():
            self._other_names.note(source, first)
        return Copy(earlier, block, tx, given, counterparts, self._layout_reads).made(
            weights, list(guards_beside(guards, frozenset(known)))
        )

    def _changed_in(self, *blocks: Any) -> bool:
        """Tell whether forward changed a part of these blocks before any was called."""
        moves = [Move(source, source) for source in blocks]
        return any(move(source) is not None for source in self._changed for move in moves)

    def _same_reads(
        self, earlier: BlockCall, block: Any, move: Move, counterparts: Counterparts, output: Any
    ) -> list[tuple[Any, Any]] | None:
        """The objects that the block has where those are that an earlier call read."""
        reads = same_objects(earlier.reads, move, counterparts, output)
        if reads is None:
            return None
        blocks = (earlier.source, earlier.reads), (block.source, reads)
        return None if met_elsewhere(*blocks, counterparts, self._objects) else reads


def _tracked(weights: Mapping[Any, tuple[Any, Any]], output: Any) -> bool:
    """Tell whether a trace has read all of some weights."""
    return all(weight in output.side_effects for _, weight in weights.values())


@contextlib.contextmanager
def tracing_repeats_once(
    blocks: Mapping[int, torch.nn.Module],
    alike: Alike,
    layout_reads: LayoutReads,
    other_names: OtherNames,
) -> Iterator[Repeats]:
    """While inside, traces of Dynamo's take down again what they have of an equal block."""
    from torch._dynamo import side_effects
    from torch._dynamo.variables import builder, lazy, nn_module

    repeats = Repeats(blocks, alike, layout_reads, other_names)
    if not blocks:
        yield repeats
        return

    def call(traced: Any, self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        def trace() -> Any:
            return traced(self, tx, args, kwargs)

        if id(self.value) not in repeats.blocks:
            return trace()
        return repeats.call(self, tx, args, kwargs, trace)

    def change(allowed: Any, self: Any, item: Any) -> Any:
        repeats.note_change(item)
        return allowed(self, item)

    def take_in(build: Any, self: Any, value: Any) -> Any:
        repeats.note_read(self, value)
        return build(self, value)

    def meet(create: Any, value: Any, *args: Any, **options: Any) -> Any:
        repeats.note_met(value)
        return create(value, *args, **options)

    with (
        in_between(nn_module.UnspecializedNNModuleVariable, "call_function", call),
        in_between(side_effects.SideEffects, "check_allowed_side_effect", change),
        in_between(builder.VariableBuilder, "__call__", take_in),
        in_between(lazy.LazyVariableTracker, "create", meet),
    ):
        yield repeats
