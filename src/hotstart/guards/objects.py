"""Describe Python objects as named texts that are the same in every process.

Two objects get the same texts only if code that reads them cannot tell them apart, as far as
Python lets one look: `one_line` describes what fits in a line, and other objects count by class and
attributes. The code of a class is compared by itself.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hotstart.errors import StoreError
from hotstart.guards.functions import class_name
from hotstart.guards.one_line import OneLine, attributes, kind_text

MOST = 200_000
"""An object that leads to more others than this is not looked at."""

_PYTHON, _FIXED = 1 << 9, 1 << 8
"""Flags of classes: made at run time, as Python's class statement does; and unchangeable."""

Named = Iterable[tuple[str, Any]]


class Unknowable(StoreError):
    """An object that has no description which is the same in every process."""


class Describer(OneLine):
    """Texts of objects and of all that they hold. One met before is a name: cycles end there."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[int, str] = {}

    def describe(self, name: str, value: Any) -> Iterator[tuple[str, str]]:
        """Describe a value and everything it holds, each by a name that begins with `name`.

        Raises:
            Unknowable: it holds something without such a description.
        """
        short = self.text(value)
        if short is not None:
            yield name, short
            return
        known = self._names.get(id(value))
        if known is not None:
            yield name, f"is {known}"
            return
        if len(self._names) >= MOST:
            raise Unknowable(f"{name}: more than {MOST} objects hang on it")
        self._names[id(value)] = name
        self._kept.append(value)
        own, held = self._opened(name, value)
        if own is not None:
            yield name, own
        for inner, each in held:
            yield from self.describe(inner, each)
        for attribute, each in attributes(value).items():
            yield from self.describe(f"{name}.{attribute}", each)

    def _opened(self, name: str, value: Any) -> tuple[str | None, Named]:
        """Take an object apart: its own text, and by name what it holds besides its attributes."""
        match value:
            case types.MethodType():
                own = f"method {self.member_text(value.__func__)}"
                return own, [(f"{name}.__self__", value.__self__)]
            case types.FunctionType() | types.BuiltinFunctionType():
                return self.function_text(value), ()
            case functools.partial():
                given = (value.args, value.keywords)
                return "partial", [(f"{name}.func", value.func), (f"{name}.args", given)]
            case Mapping():
                items = value.items()
                return _sized(value), ((f"{name}[{self.member_text(k)}]", v) for k, v in items)
            case list() | tuple():
                return _sized(value), ((f"{name}[{at}]", v) for at, v in enumerate(value))
            case set() | frozenset():
                texts = sorted(map(self.member_text, value))
                return f"{class_name(type(value))} {{{', '.join(texts)}}}", ()
            case slice():
                return None, [(name, ("slice", value.start, value.stop, value.step))]
        state = _hidden(value)
        return kind_text(value), () if state is None else [(f"{name} state", state)]


def _sized(value: Any) -> str:
    return f"{class_name(type(value))} of {len(value)}"


def _hidden(value: Any) -> Any:
    """Ask pickle for the parts of an object of a class that Python cannot look into."""
    flags = [cls.__flags__ for cls in type(value).__mro__ if cls is not object]
    if all(flag & _PYTHON and not flag & _FIXED for flag in flags):
        return None
    try:
        reduced = value.__reduce_ex__(2)
    except Exception:  # noqa: BLE001  whatever it is, it cannot be said
        return None
    if isinstance(reduced, str):
        return reduced
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]
