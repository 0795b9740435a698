"""Trace bodies that eager may skip; require that they leave Python's state unchanged."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.dynamo.idle_state import is_read, leads_to, unwrapped
from hotstart._torch.graphs.source_lines import user_line

if TYPE_CHECKING:
    import sympy

_IDLE = "hotstart_idle"
"""The key in nodes' `meta` of the `Idle`s that they belong to."""

_PASSED = frozenset({"NOP", "RESUME", "CACHE", "NOT_TAKEN", "EXTENDED_ARG"})

_GOES_ON = frozenset(
    {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "JUMP_BACKWARD_NO_INTERRUPT"}
)


@dataclass(frozen=True)
class Idle:
    """Identifies the nodes that eager skips where some numbers are 0; they share one object.

    Attributes:
        symbols: torch's symbols of the numbers; all are 0 then.
        masks: nodes of masks that select nothing then.
        line: of the user's code that decides.
    """

    symbols: tuple[sympy.Symbol, ...]
    masks: tuple[fx.Node, ...]
    line: str


def idle_nodes(graph: fx.Graph) -> Iterator[tuple[Idle, frozenset[fx.Node]]]:
    """Yield the nodes that eager leaves out where there is nothing to do, and others between."""
    places: dict[int, tuple[Idle, list[int]]] = {}
    nodes = list(graph.nodes)
    for place, node in enumerate(nodes):
        for idle in node.meta.get(_IDLE, ()):
            places.setdefault(id(idle), (idle, []))[1].append(place)
    for idle, at in places.values():
        yield idle, frozenset(nodes[min(at) : max(at) + 1])


@dataclass
class _Body:
    """A body that a trace is in.

    Attributes:
        tx: the translator of the frame it is in.
        entered_by: the instruction that decides.
        join: the instruction after it, where execution continues if it is skipped.
        error: to raise if Python code could tell that it was not skipped.
        line: of the user's code that decides.
        last: the last node of the graph before it.
        tracer: has the graph.
        stack: the frame's stack before.
        variables: the frame's local variables before.
        blocks: how many blocks the frame is in.
        symbol: the number that is 0 where it is skipped, if a number decides.
        decides: the node of the tensor that decides, if one does: the body is skipped where that is
            0.
        changed: variables of Dynamo's that it has changed.
    """

    tx: Any
    entered_by: Any
    join: Any
    error: BaseException
    line: str
    last: fx.Node
    tracer: Any
    stack: list[Any]
    variables: dict[str, Any]
    blocks: int
    symbol: sympy.Symbol | None
    decides: fx.Node | None
    changed: list[Any] = field(default_factory=list)

    def nodes(self) -> list[fx.Node]:
        """List the nodes it has made."""
        after = itertools.dropwhile(lambda n: n is not self.last, self.tracer.graph.nodes)
        return [node for node in after if node is not self.last and node.op != "placeholder"]


class Bodies:
    """The bodies that a trace is in, the innermost last."""

    def __init__(self) -> None:
        self._open: list[_Body] = []

    def watching(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        """Yield functions of Dynamo's that change its variables, with what to call in their place.

        They are those of torch 2.11 to 2.15.
        """
        from torch._dynamo.side_effects import SideEffects

        for name in ("mutation", "store_attr"):
            yield SideEffects, name, self._noting(1)
        for cls, name in _iterations():
            yield cls, name, self._noting(0)

    def _noting(self, position: int) -> Callable[..., Any]:
        def call(change: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            for body in self._open:
                body.changed.append(args[position])
            return change(*args, **kwargs)

        return call

    def enter_branch(self, tx: Any, jump: Any, value: Any, error: BaseException) -> bool | None:
        """Enter the body of a condition that is skipped where a number, or a tensor, is 0.

        Returns:
            The value of the condition elsewhere; None for other conditions.
        """
        symbol, decides, truth = _asked(value.realize())
        left_out = jump.target if ("IF_TRUE" in jump.opname) != truth else tx.next_instruction
        join = _after_jumps(tx, left_out)
        if (symbol is None and decides is None) or "OR_POP" in jump.opname or join is None:
            return None
        if any(body.tx is tx and body.entered_by is jump for body in self._open):
            return None  # a round of a `while`, of which there may be any number
        self._enter(tx, jump, join, error, symbol, decides)
        return truth

    def enter_round(self, tx: Any, loop: Any, found: fx.Node) -> None:
        """Enter an iteration of a loop that is skipped where `found`, a node, is 0."""
        from torch._dynamo import exc

        self._enter(tx, loop, loop, exc.Unsupported("Data-dependent branching"), None, found)

    def _enter(
        self,
        tx: Any,
        jump: Any,
        join: Any,
        error: BaseException,
        symbol: sympy.Symbol | None,
        decides: fx.Node | None,
    ) -> None:
        from torch._guards import TracingContext

        if any(body.tx.output is not tx.output for body in self._open):
            self._open.clear()  # Dynamo has begun anew
        tracer = tx.output.current_tracer
        body = _Body(
            tx=tx,
            entered_by=jump,
            join=join,
            error=error,
            line=user_line(list(TracingContext.extract_stack())),
            last=next(iter(reversed(tracer.graph.nodes))),
            tracer=tracer,
            stack=list(tx.stack[:-1]),  # without what is asked, or the row of the round
            variables=dict(tx.symbolic_locals),
            blocks=len(tx.block_stack),
            symbol=symbol,
            decides=decides,
        )
        self._open.append(body)
        if "step" not in vars(tx):
            tx.step = self._stepping(tx, tx.step)

    def _stepping(self, tx: Any, step: Callable[[], bool]) -> Callable[[], bool]:
        """Close bodies of a frame before the instruction that follows them."""

        def close_and_step() -> bool:
            at = tx.instruction_pointer
            upcoming = None if at is None else tx.instructions[at]
            while self._open and self._open[-1].tx is tx and self._open[-1].join is upcoming:
                self._close(self._open.pop())
            goes_on = step()
            for body in self._open:
                if body.tx is tx and not goes_on:
                    raise body.error
            return goes_on

        return close_and_step

    def any_open(self) -> bool:
        """Tell whether a trace is in a body."""
        return bool(self._open)

    def require_closed(self) -> None:
        """Raise if a body of the trace has no end."""
        for body in self._open:
            raise body.error

    def _close(self, body: _Body) -> None:
        """Note which nodes a body has made.

        Raises:
            Unsupported: Python code after it could tell that it was not skipped.
        """
        if _shows(body):
            raise body.error
        nodes = body.nodes()
        masks = _counted(body)
        symbols = [] if body.symbol is None else [body.symbol]
        symbols += _find_nothing(nodes, body.decides, masks)
        idle = Idle(tuple(dict.fromkeys(symbols)), tuple(masks), body.line)
        for node in nodes:
            node.meta[_IDLE] = (*node.meta.get(_IDLE, ()), idle)


def _iterations() -> Iterator[tuple[type, str]]:
    """Yield the functions of Dynamo's that say what follows in an iteration.

    They are `tp_iternext_impl` since 2.13, `next_variable` up to 2.12.
    """
    from torch._dynamo.variables.base import VariableTracker

    waiting: list[type] = [VariableTracker]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        for name in ("tp_iternext_impl", "next_variable"):
            if name in vars(cls):
                yield cls, name


def _asked(value: Any) -> tuple[sympy.Symbol | None, fx.Node | None, bool]:
    """Find the number or tensor that decides a condition, and the value where it is not 0."""
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    if isinstance(value, TensorVariable):
        node, truth = _compared(value.proxy.node)
        return None, (node if node.meta["example_value"].dim() == 0 else None), truth
    known = value.sym_num if isinstance(value, SymNodeVariable) else None
    if isinstance(known, torch.SymInt):
        known = known != 0
    return _zero_asked(known) if isinstance(known, torch.SymBool) else (None, None, True)


def _compared(node: fx.Node) -> tuple[fx.Node, bool]:
    """Find what `x == 0` compares, and the truth of that where it is not 0; else the node, True."""
    equal = node.target in (operator.eq, torch.eq, "eq", "__eq__") and len(node.args) == 2
    given = node.args[0] if equal else None
    if equal and isinstance(given, fx.Node) and type(node.args[1]) is int and node.args[1] == 0:
        return given, False
    return node, True


def _zero_asked(asked: torch.SymBool) -> tuple[sympy.Symbol | None, None, bool]:
    """Find the number of data that a condition compares with 0."""
    import sympy
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    expr, env = asked.node.expr, asked.node.shape_env
    numbers = list(free_unbacked_symbols(asked))
    if len(numbers) == 1 and env.var_to_range[numbers[0]].lower >= 0:
        others = expr.subs(numbers[0], sympy.Dummy(positive=True, integer=True))
        if others in (sympy.true, sympy.false) and expr.subs(numbers[0], 0) == ~others:
            return numbers[0], None, bool(others)
    return None, None, True


def _after_jumps(tx: Any, instruction: Any) -> Any:
    """Follow jumps without a condition, beginning at an instruction; None in a circle."""
    for _ in tx.instructions:
        if instruction.opname in _GOES_ON:
            instruction = instruction.target
        elif instruction.opname in _PASSED:
            instruction = tx.instructions[tx.indexof[instruction] + 1]
        else:
            return instruction
    return None


def _shows(body: _Body) -> bool:
    """Tell whether a body has changed any Python state that later code can read."""
    tx = body.tx
    before, after = body.variables, tx.symbolic_locals
    if (
        tx.output.current_tracer is not body.tracer
        or len(tx.block_stack) != body.blocks
        or len(tx.stack) != len(body.stack)
        or any(unwrapped(a) is not unwrapped(b) for a, b in zip(body.stack, tx.stack, strict=True))
    ):
        return True
    for name in before.keys() | after.keys():
        same = unwrapped(before.get(name)) is unwrapped(after.get(name))
        if not same and is_read(tx, body.join, name):
            return True
    if not body.changed:
        return False
    live = [value for name, value in after.items() if is_read(tx, body.join, name)]
    return leads_to(tx, [*tx.stack, *live], body.changed)


def mask_of(node: fx.Node) -> tuple[int, fx.Node] | None:
    """Find the mask whose elements that are not 0 a node finds, reads or writes at.

    Returns:
        Its place among the node's arguments, and the mask; None for other nodes.
    """
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    if name in ("nonzero", "where") and len(node.args) == 1:
        place = 0
    elif node.target in (operator.getitem, operator.setitem):
        place = 1
    else:
        return None
    mask = node.args[place]
    if not isinstance(mask, fx.Node):
        return None
    example = mask.meta.get("example_value")
    is_mask = isinstance(example, torch.Tensor) and (place == 0 or example.dtype == torch.bool)
    return (place, mask) if is_mask else None


def _counted(body: _Body) -> list[fx.Node]:
    """List the masks that select nothing where the number that decides a body is 0."""
    for node in body.tracer.graph.nodes:
        found = mask_of(node)
        if found and body.symbol in (node.meta.get("unbacked_bindings") or ()):
            written = found[1].meta["example_value"]._version > 0
            return [] if written else [found[1]]
    return []


def _find_nothing(
    nodes: Sequence[fx.Node], decides: fx.Node | None, masks: list[fx.Node]
) -> Iterator[sympy.Symbol]:
    """Have nodes find nothing where a body is skipped; yield symbols of how much they find.

    `where(mask)` becomes `where(mask & decides)`, which is the same where the body is not left out.

    Args:
        nodes: those of the body.
        decides: the tensor that decides; None if a number does.
        masks: those that select nothing then, to which these masks are added.
    """
    for node in nodes:
        found = mask_of(node)
        if found is None:
            continue
        place, mask = found
        if decides is not None:
            mask = _with(decides, mask, node)
            node.update_arg(place, mask)
            masks.append(mask)
        if mask in masks:
            yield from node.meta.get("unbacked_bindings") or ()


def _with(decides: fx.Node, mask: fx.Node, reader: fx.Node) -> fx.Node:
    with reader.graph.inserting_before(reader):
        both = reader.graph.call_function(torch.logical_and, (mask, decides))
    examples = [made.meta["example_value"] for made in both.all_input_nodes]
    both.meta = {**reader.meta, "example_value": torch.logical_and(*examples)}
    both.meta.pop("unbacked_bindings", None)
    return both
