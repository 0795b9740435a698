"""Get between a private function of torch's and those that call it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def in_between(holder: Any, name: str, called: Callable[..., Any]) -> Iterator[None]:
    """Call another function in place of one, in this thread; other threads call it as ever.

    Args:
        holder: the class or module that has the function.
        name: the function.
        called: is given the function, then its arguments.
    """
    kept, function = vars(holder)[name], getattr(holder, name)
    thread = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return function(*args, **kwargs)
        return called(function, *args, **kwargs)

    setattr(holder, name, staticmethod(call) if isinstance(kept, staticmethod) else call)
    try:
        yield
    finally:
        setattr(holder, name, kept)
