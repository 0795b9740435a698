"""Record which Python objects traced code changes."""

from __future__ import annotations

import ast
import contextlib
import dis
import types
import warnings
from collections.abc import Iterator, Sequence

from hotstart._torch.dynamo.guards import is_table_of_types


@contextlib.contextmanager
def recording_side_effects() -> Iterator[list[str]]:
    """Collect the names of the Python objects a traced function changes.

    Dynamo tells them in a warning, when its policy is "warn" (2.10 and later), and nowhere else.
    """
    import torch._dynamo.config as config

    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with config.patch(side_effect_replay_policy="warn"):
            yield found
    for warning in caught:
        text = str(warning.message)
        if "side effects" in text and text.endswith("]"):
            found.extend(map(str, ast.literal_eval(text[text.rindex(": [") + 2 :])))
        # An array is a tensor in a trace.
        elif not text.startswith("To copy construct from a tensor"):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def lasting(side_effects: Sequence[str], codes: Sequence[types.CodeType]) -> Iterator[str]:
    """The side effects that outlive a call, or may.

    What torch's modules keep is which warnings were shown. Variables of outer functions have no
    name, nor has torch's stack of modes, which a `with` block in forward changes and restores.
    """
    assigns = "<unknown source>" in side_effects and any(
        step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
        for code in codes
        for step in dis.get_instructions(code)
    )
    for name in side_effects:
        if name == "<unknown source>":
            if assigns:
                yield "a variable of an outer function"
        elif not name.startswith("G['__import_torch_") and not is_table_of_types(name):
            yield name
