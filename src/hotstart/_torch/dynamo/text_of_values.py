"""Put off the text that forward formats from sizes, and refuse text that outlives the call."""

from __future__ import annotations

import contextlib
import dis
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import in_between, with_items


@contextlib.contextmanager
def text_of_sizes_when_asked() -> Iterator[None]:
    """Join `f"{x.shape[0]} rows"` where something asks for its letters: a message seldom does.

    `BUILD_STRING` (2.11 to 2.15) asks at once, and a graph for each size would be the answer.
    """
    from torch._dynamo.symbolic_convert import InliningInstructionTranslator, InstructionTranslator
    from torch._dynamo.variables.lazy import LazySymNodeFormatString, LazyVariableTracker

    class Joined(LazySymNodeFormatString):
        def __init__(self, parts: list[Any]) -> None:
            self.parts = parts

        def __repr__(self) -> str:
            return "".join(part.as_python_constant() for part in self.parts)

    def is_put_off(part: Any) -> bool:
        if not isinstance(part, LazyVariableTracker) or part.is_realized():
            return False
        text: Any = part.original_value()
        if isinstance(text, Joined):
            return True
        return isinstance(text, LazySymNodeFormatString) and not _depends_on_data(text.sym_node_var)

    def join(known: Any) -> Any:
        def build(tx: Any, instruction: Any) -> Any:
            parts = tx.stack[-instruction.arg :]
            put_off = [is_put_off(part) for part in parts]
            others = (part for part, lazy in zip(parts, put_off, strict=True) if not lazy)
            if not any(put_off) or not all(other.is_python_constant() for other in others):
                return known(tx, instruction)
            tx.popn(instruction.arg)
            tx.push(LazyVariableTracker.create(Joined(parts), source=None))
            return None

        return build

    with contextlib.ExitStack() as replaced:
        for cls in (InstructionTranslator, InliningInstructionTranslator):
            table: list[Any] = cls.dispatch_table
            number = dis.opmap["BUILD_STRING"]
            replaced.enter_context(with_items(table, {number: join(table[number])}))
        yield


@contextlib.contextmanager
def refusing_text_of_values() -> Iterator[None]:
    """Fail a trace in which text with a value of the call outlives it: `f"{mask.sum()}"`.

    Dynamo (2.11 to 2.15) formats in its bytecode, after the graph. The bytecode is replayed once
    with stand-ins, so every call would get their text. Text that nothing keeps is never formatted.
    """
    from torch._dynamo.exc import Unsupported
    from torch._dynamo.variables.misc import StringFormatVariable
    from torch._guards import TracingContext

    lines: dict[int, tuple[Any, Any]] = {}  # by identity of the text, which is kept with its line

    def create(make: Any, *args: Any, **kwargs: Any) -> Any:
        text = make(*args, **kwargs)
        if isinstance(text, StringFormatVariable):
            lines[id(text)] = text, TracingContext.extract_stack()
        return text

    def reconstruct(write: Any, self: Any, codegen: Any) -> None:
        if _known_in_a_call([self.sym_args, self.sym_kwargs]):
            _, line = lines.get(id(self), (None, None))
            raise Unsupported(
                "text of a tensor, a size or a number that only a call knows\n"
                "  Hint: return it, and make the text outside.",
                real_stack=line,
            )
        write(self, codegen)

    with (
        in_between(StringFormatVariable, "create", create),
        in_between(StringFormatVariable, "reconstruct", reconstruct),
    ):
        yield


def _known_in_a_call(values: Any) -> bool:
    """Tell whether values of Dynamo's hold a tensor, or a number that a graph computes."""
    from torch._dynamo.variables.base import VariableTracker
    from torch._dynamo.variables.tensor import SymNodeVariable, TensorVariable

    found: list[Any] = []
    VariableTracker.visit(found.append, values)
    return any(isinstance(value, SymNodeVariable | TensorVariable) for value in found)


def _depends_on_data(number: Any) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(number.sym_num))
