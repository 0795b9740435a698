"""The state of Dynamo's translators (2.11 to 2.15) that later code can read."""

from __future__ import annotations

import dis
from collections.abc import Sequence
from typing import Any


def unwrapped(variable: Any) -> Any:
    """The variable that a lazy one of Dynamo's stands for, if it is known."""
    return None if variable is None else variable.unwrap()


def is_read(tx: Any, start: Any, name: str) -> bool:
    """Tell whether a local variable may be read before it is written, from an instruction on."""
    from torch._dynamo.bytecode_analysis import TERMINAL_OPCODES

    seen: set[int] = set()
    waiting = [tx.indexof[start]]
    while waiting:
        at = waiting.pop()
        if at in seen or at >= len(tx.instructions):
            continue
        seen.add(at)
        step = tx.instructions[at]
        if step.exn_tab_entry:
            waiting.append(tx.indexof[step.exn_tab_entry.target])
        if _is_about(step, name):
            if step.opname in ("STORE_FAST", "STORE_DEREF"):
                continue
            return True
        if step.target is not None:
            waiting.append(tx.indexof[step.target])
        if step.opcode not in TERMINAL_OPCODES:
            waiting.append(at + 1)
    return False


def _is_about(instruction: Any, name: str) -> bool:
    """Tell whether an instruction reads or writes a local variable."""
    if instruction.opcode not in {*dis.haslocal, *dis.hasfree}:
        return False
    named = instruction.argval
    return name in named if isinstance(named, tuple) else bool(name == named)


def leads_to(tx: Any, live: Sequence[Any], changed: Sequence[Any]) -> bool:
    """Tell whether later code can reach a changed variable.

    Args:
        tx: the translator of a frame.
        live: variables that the frame goes on with; all of frames outside of it count, too, and so
            do objects that the caller has.
        changed: those that were changed.
    """
    from torch._dynamo.variables.base import VariableTracker

    objects = [unwrapped(variable) for variable in changed]
    if not all(map(_is_new, objects)):
        return True
    wanted, found = {id(each) for each in objects}, []
    seen: dict[int, Any] = {}
    frames = [list(live)]
    outer = tx.parent
    while outer is not None:
        frames.append([*outer.stack, *outer.symbolic_locals.values()])
        outer = outer.parent
    effects = tx.output.side_effects
    given = [each for each in effects.id_to_variable.values() if not _is_new(each)]
    waiting: list[Any] = [[*frames, given]]

    def visit(variable: Any) -> None:
        if id(variable) in wanted:
            found.append(variable)
        # `VariableTracker.visit` leaves out attributes that the code has set (2.11).
        waiting.append(effects.store_attr_mutations.get(variable))

    while waiting:
        VariableTracker.visit(visit, waiting.pop(), seen)
    return bool(found)


def _is_new(variable: Any) -> bool:
    """Tell whether the trace itself made an object, so that the caller cannot have it."""
    from torch._dynamo.variables.base import AttributeMutationNew, ValueMutationNew

    return isinstance(variable.mutation_type, AttributeMutationNew | ValueMutationNew | None)
