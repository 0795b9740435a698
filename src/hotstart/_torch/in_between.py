"""Replace a function, an attribute or entries of a table of torch's for a while."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def in_between(holder: Any, name: str, called: Callable[..., Any]) -> Iterator[None]:
    """Replace a function in this thread; other threads call it as ever.

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

    call.__name__ = name  # by which some look for the same of another class
    plain = isinstance(kept, classmethod | staticmethod)  # `function` is bound to its class already
    setattr(holder, name, staticmethod(call) if plain else call)
    try:
        yield
    finally:
        setattr(holder, name, kept)


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    """Replace an attribute of a module, a class or an object, in all threads."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def with_entries(table: dict[Any, Any], entries: Mapping[Any, Any]) -> Iterator[None]:
    """Add or replace entries of a dict, in all threads."""
    before = {key: table[key] for key in entries if key in table}
    table.update(entries)
    try:
        yield
    finally:
        for key in entries:
            del table[key]
        table.update(before)


@contextlib.contextmanager
def with_items(table: list[Any], items: Mapping[int, Callable[..., Any]]) -> Iterator[None]:
    """Replace functions in a list in this thread; other threads call those that are there."""
    thread = threading.get_ident()
    before = list(table)

    def in_this_thread(known: Callable[..., Any], called: Callable[..., Any]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            mine = threading.get_ident() == thread
            return (called if mine else known)(*args, **kwargs)

        return call

    for index, called in items.items():
        table[index] = in_this_thread(before[index], called)
    try:
        yield
    finally:
        table[:] = before
