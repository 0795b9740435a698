"""Refuse generators that forward leaves before their end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def refusing_left_generators() -> Iterator[None]:
    """Let a trace fail where forward leaves a generator within a `try` or a `with` of its code.

    Python closes it there, which runs what `finally` says and ends the `with`. Dynamo (2.11 to
    2.15) does neither.
    """
    from torch._dynamo.exc import Unsupported
    from torch._dynamo.output_graph import OutputGraph
    from torch._dynamo.symbolic_convert import InliningGeneratorInstructionTranslator
    from torch._guards import TracingContext

    left: dict[Any, Any] = {}  # the generators that wait there, with the lines

    def go_on(run: Any, self: Any) -> Any:
        left.pop(self, None)
        value = run(self)
        handler = self.current_instruction.exn_tab_entry
        # From Python 3.12 on, all code of a generator is within one that has no such step.
        if handler is not None and handler.target.opname == "PUSH_EXC_INFO":
            left[self] = TracingContext.extract_stack()
        return value

    def finish(write: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        for generator, line in left.items():
            if generator.output is self and not generator.generator_exhausted:
                raise Unsupported(
                    "a generator that is left within `try` or `with`: Python closes it there\n"
                    "  Hint: go on to its end, or close it.",
                    real_stack=line,
                )
        return write(self, *args, **kwargs)

    with (
        in_between(InliningGeneratorInstructionTranslator, "inline_call_", go_on),
        in_between(OutputGraph, "compile_subgraph", finish),
    ):
        yield
