"""Refuse text that forward formats from tensors, sizes and numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import in_between


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
