"""Where traced code comes by an object of the caller's in another way than as an argument.

A model is traced with stand-ins of the lists, dicts and objects that it is passed. Code that finds
the caller's own in a global, in the model or in what it closes over, and asks whether they are the
same, is answered otherwise than in eager.
Private names, of torch 2.11 to 2.15: `variables.lazy.LazyVariableTracker.create` and
`variables.builder.VariableBuilder.__call__`, by one of which Dynamo takes in each object.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def recording_passed_objects(passed: Mapping[int, tuple[str, object]]) -> Iterator[dict[str, str]]:
    """Collect where a trace of this thread comes by objects that are passed.

    Args:
        passed: the caller's objects, each with its name, by identity.

    Yields:
        By name of an argument, Dynamo's name of where else it was found.
    """
    found: dict[str, str] = {}
    if not passed:
        yield found
        return
    from torch._dynamo.variables import builder, lazy

    thread = threading.get_ident()
    building: Any = builder.VariableBuilder
    tracker: Any = lazy.LazyVariableTracker
    build, create = building.__call__, tracker.create

    def note(value: Any, source: Any) -> None:
        if id(value) in passed and threading.get_ident() == thread:
            found.setdefault(passed[id(value)][0], getattr(source, "name", ""))

    def take_in(self: Any, value: Any) -> Any:
        note(value, self.source)
        return build(self, value)

    def meet(value: Any, source: Any, **options: Any) -> Any:
        note(value, source)
        return create(value, source, **options)

    building.__call__ = take_in
    tracker.create = staticmethod(meet)
    try:
        yield found
    finally:
        building.__call__ = build
        tracker.create = staticmethod(create)
