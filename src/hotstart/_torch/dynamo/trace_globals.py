"""Take back the names that Dynamo makes among the globals of code that it traces."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from hotstart._torch.in_between import in_between


@contextlib.contextmanager
def names_taken_back() -> Iterator[None]:
    """Remove, in the end, the names that traces make in the modules of traced functions.

    One of them is the function that would run the graph, which keeps the graph with all its fake
    tensors. `CleanupHook.create` (2.11 to 2.15) makes them, and the hooks remove them when compiled
    code is gone; a capture compiles none, so they would stay for good.
    """
    from torch._dynamo.utils import CleanupHook

    made: list[Any] = []

    def create(make: Callable[..., Any], *args: Any) -> Any:
        made.append(make(*args))
        return made[-1]

    try:
        with in_between(CleanupHook, "create", create):
            yield
    finally:
        for hook in made:
            if hook.name in hook.scope:
                hook()
