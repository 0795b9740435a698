"""Record where traced code could tell a passed object from its stand-in.

A model is traced with stand-ins of the lists, dicts and objects that it is passed. Code that finds
the caller's own in a global, in the model or in what it closes over, or that asks whether an
argument is one of these, is answered otherwise than in eager, now or in a later call.
Private names, of torch 2.11 to 2.15: `variables.lazy.LazyVariableTracker.create` and
`variables.builder.VariableBuilder.__call__`, by one of which Dynamo takes in each object;
`vt_identity_compare` of `variables.builtin` and `variables.object_protocol`, which answers `is`,
`==` of objects that do not say what it means for them, and `in`; 2.13 and later.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def recording_passed_objects(
    passed: Mapping[int, tuple[str, object]], self_name: str | None
) -> Iterator[dict[str, str]]:
    """Collect where a trace of this thread comes by objects that are passed, or compares them.

    Args:
        passed: the caller's objects, each with its name, by identity.
        self_name: the variable that holds the traced module; None for a plain function.

    Yields:
        By name of an argument, Dynamo's name of what else it may be.
    """
    found: dict[str, str] = {}
    if not passed:
        yield found
        return
    from torch._dynamo.variables import builder, builtin, lazy, object_protocol

    def note(value: Any, source: Any) -> None:
        if id(value) in passed:
            found.setdefault(passed[id(value)][0], getattr(source, "name", ""))

    def take_in(build: Any, self: Any, value: Any) -> Any:
        note(value, self.source)
        return build(self, value)

    def meet(create: Any, value: Any, source: Any, **options: Any) -> Any:
        note(value, source)
        return create(value, source, **options)

    def compare(compared: Any, left: Any, right: Any) -> Any:
        for argument, other in ((left, right), (right, left)) if left is not right else ():
            name = _argument(argument, self_name)
            if name is not None and _is_an_object(other):
                found.setdefault(name, other.source.name)
        return compared(left, right)

    with contextlib.ExitStack() as entered:
        entered.enter_context(in_between(builder.VariableBuilder, "__call__", take_in))
        entered.enter_context(in_between(lazy.LazyVariableTracker, "create", meet))
        for module in (builtin, object_protocol):
            if hasattr(module, "vt_identity_compare"):
                entered.enter_context(in_between(module, "vt_identity_compare", compare))
        yield found


def _is_an_object(variable: Any) -> bool:
    """Tell whether a variable of Dynamo's is a container or an object from before the call."""
    from torch._dynamo import variables

    private: Any = variables
    kinds = (
        private.ListVariable,
        private.ConstDictVariable,
        private.SetVariable,
        private.UserDefinedObjectVariable,
    )
    return isinstance(variable, kinds) and variable.source is not None


def _argument(variable: Any, self_name: str | None) -> str | None:
    """The name of a container or object that is passed; None for what is not."""
    if not _is_an_object(variable):
        return None
    name = str(variable.source.name)
    found = re.match(r"L\['(\w+)'\]", name)
    return None if found is None or found[1] == self_name else re.sub(r"^L\['(\w+)'\]", r"\1", name)
