"""Let Dynamo trace through branches that only skip work without effect.

`if rows.numel() > 0: result.index_add_(0, rows, expert(x[rows]))` does the same without the
condition: of no rows, nothing is added. A loop over the experts that have rows does the same as one
over all of them, if the others find no rows. A trace has the nodes that eager may skip. They must
have no effect then: `idle_bodies` proves that for Python's state, `partition/idle_nodes` for the
graph.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from hotstart._torch.dynamo.data_numbers import known_contents
from hotstart._torch.dynamo.decided_by_sizes import SizeDecisions
from hotstart._torch.dynamo.idle_bodies import Bodies
from hotstart._torch.dynamo.raising_branches import decide_by_raising
from hotstart._torch.dynamo.sides import Sides
from hotstart._torch.graphs.symbols import Condition
from hotstart._torch.in_between import in_between, with_items

_LIMIT = 512
"""Most iterations of an unrolled loop over rows."""


@contextlib.contextmanager
def passing_idle_branches(sides: Sides | None) -> Iterator[list[Condition]]:
    """Decide jumps on known tensors and over idle branches; unroll loops over rows of `nonzero`.

    The tables of instructions of Dynamo's translators (2.11 to 2.15) get other functions for jumps
    and for loops, in this thread.

    Args:
        sides: decides the branches that are left, in place of tracing through those that are idle;
            None where these are to be traced through.

    Yields:
        What was decided by sizes, over torch's symbols.
    """
    from torch._dynamo.symbolic_convert import InliningInstructionTranslator, InstructionTranslator

    bodies, by_sizes = Bodies(), SizeDecisions()
    loops = _Loops(bodies)
    with contextlib.ExitStack() as replaced:
        for cls in (InstructionTranslator, InliningInstructionTranslator):
            table: list[Any] = cls.dispatch_table
            entries: dict[int, Callable[..., Any]] = {
                number: _jump(table[number], by_sizes, bodies, sides)
                for name, number in dis.opmap.items()
                if "JUMP" in name and "IF_" in name and "NONE" not in name
            }
            for name, made in (("GET_ITER", loops.begin), ("FOR_ITER", loops.round)):
                number = dis.opmap[name]
                entries[number] = made(table[number])
            replaced.enter_context(with_items(table, entries))
        for holder, name, called in bodies.watching():
            replaced.enter_context(in_between(holder, name, called))
        yield by_sizes.conditions
        bodies.require_closed()


def _jump(
    jump: Callable[..., Any], by_sizes: SizeDecisions, bodies: Bodies, sides: Sides | None
) -> Callable[..., Any]:
    """Jump as Dynamo does; else by known values, by sizes, to a side, or into an idle body."""
    from torch._dynamo.exc import Unsupported, UserError
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    def decide(tx: Any, instruction: Any) -> Any:
        tx.stack[-1] = _of_its_kind(tx, tx.stack[-1])
        stack = list(tx.stack)
        try:
            return jump(tx, instruction)
        except (Unsupported, UserError, GuardOnDataDependentSymNode) as error:
            tx.stack[:] = stack
            known = _known(stack[-1])
            if known is None:
                known = by_sizes.decide(tx, stack[-1])
            if known is None:
                known = decide_by_raising(tx, instruction, stack[-1])
            if known is None and sides is not None and not bodies.any_open():
                known = sides.decide(tx, instruction, stack[-1])
            elif known is None:
                known = bodies.enter_branch(tx, instruction, stack[-1], error)
            if known is None:
                raise
        tx.stack[-1] = _constant(known)
        result = jump(tx, instruction)
        if len(tx.stack) == len(stack) and not _is_bool(stack[-1]):
            tx.stack[-1] = stack[-1]  # `a and b` is `a` itself where that decides
        return result

    return decide


def _of_its_kind(tx: Any, value: Any) -> Any:
    """A variable, or that of a tensor in place of one that Dynamo takes for a number.

    Such is `n == count`, of a size and a tensor.
    """
    from torch._dynamo.variables.builder import wrap_fx_proxy
    from torch._dynamo.variables.tensor import SymNodeVariable

    if isinstance(value, SymNodeVariable) and isinstance(value.sym_num, torch.Tensor):
        proxy = value.as_proxy()
        del proxy.node.meta["example_value"]
        return wrap_fx_proxy(tx, proxy)
    return value


def _is_bool(value: Any) -> bool:
    return isinstance(getattr(value, "sym_num", None), torch.SymBool)


def _constant(value: bool) -> Any:
    from torch._dynamo.variables import ConstantVariable

    return ConstantVariable.create(value)


def _known(value: Any) -> bool | None:
    """The truth of a tensor of one element that is computed of constants only; None for others."""
    from torch._dynamo.variables.tensor import TensorVariable

    value = value.realize()
    if not isinstance(value, TensorVariable):
        return None
    contents = known_contents(value.proxy.node.meta["example_value"])
    return None if contents is None else bool(torch.tensor(contents))


class _Loops:
    """Loops over the rows of `nonzero`, unrolled for every row that it may find."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._rounds: dict[int, tuple[Any, list[Any]]] = {}

    def begin(self, get_iter: Callable[..., Any]) -> Callable[..., Any]:
        """Iterate over all rows that may be found, where it is not known how many are."""

        def begin(tx: Any, instruction: Any) -> Any:
            # From 3.15 on, a loop keeps a number beside its iterator.
            loops = tx.instructions[tx.instruction_pointer].opname == "FOR_ITER"
            known = loops and sys.version_info < (3, 15)
            found = _found_rows(tx.stack[-1]) if known else None
            if found is None or found[1] > _LIMIT:
                return get_iter(tx, instruction)
            rows, count = found
            tx.pop()
            iterator, hits = _all_rows(tx, rows, count)
            self._rounds[id(iterator)] = (iterator, hits)
            return tx.push(iterator)

        return begin

    def round(self, for_iter: Callable[..., Any]) -> Callable[..., Any]:
        """Note that the iteration is idle where its row is not found."""

        def begin(tx: Any, instruction: Any) -> Any:
            _, hits = self._rounds.get(id(tx.stack[-1]), (None, []))
            depth = len(tx.stack)
            result = for_iter(tx, instruction)
            if hits and len(tx.stack) == depth + 1:
                self._bodies.enter_round(tx, instruction, hits.pop(0))
            return result

        return begin


def _found_rows(value: Any) -> tuple[Any, int] | None:
    """The result of `nonzero` of a tensor of one dimension, and the most rows that it may have."""
    from torch._dynamo.variables.tensor import TensorVariable

    value = value.realize()
    node: Any = value.proxy.node if isinstance(value, TensorVariable) else None
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0] if node else ""
    if name != "nonzero" or len(node.args) != 1 or node.kwargs:
        return None
    given = node.args[0].meta["example_value"]
    written = node.meta["example_value"]._version > 0
    if given.dim() != 1 or type(given.shape[0]) is not int or written:
        return None
    return value, given.shape[0]


def _all_rows(tx: Any, rows: Any, count: int) -> tuple[Any, list[Any]]:
    """An iterator of Dynamo's over rows as `nonzero` gives them, and a node for each: was it found?

    Rows are found in ascending order. Each is a tensor that Dynamo knows the contents of.
    """
    from torch._dynamo.variables.base import ValueMutationNew
    from torch._dynamo.variables.builder import wrap_fx_proxy
    from torch._dynamo.variables.lists import ListIteratorVariable

    def made(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        proxy = tx.output.create_proxy("call_function", function, args, kwargs)
        variable: Any = wrap_fx_proxy(tx, proxy)
        return variable

    device = rows.proxy.node.meta["example_value"].device
    items = [made(torch.tensor, [number], device=device) for number in range(count)]
    equal = [made(torch.eq, rows.proxy, number) for number in range(count)]
    hits = [made(torch.any, each.proxy).proxy.node for each in equal]
    return ListIteratorVariable(items, mutation_type=ValueMutationNew()), hits
