"""Whether a model's modules are what the compiled code was made of, besides their tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hotstart.ir import Fact, ModuleKind, Requirements
from hotstart.keys.records import Step
from hotstart.objects import Describer
from hotstart.tensors import Finder
from hotstart.trees import same_constant


def misfits(requirements: Requirements, finder: Finder) -> list[str]:
    """A line for everything about a model's modules that differs from the build's."""
    problems: list[str] = []
    fitting: list[type | None] = [None] * len(requirements.kinds)
    for path, number in requirements.modules:
        module = finder.module(path)
        kind = requirements.kinds[number]
        if type(module) is not fitting[number]:
            found = "nothing" if module is None else class_name(type(module))
            if not _same_class(kind.cls, found):
                problems.append(f"{path or 'model'}: expected a {kind.cls}, found {found}")
                continue
            fitting[number] = type(module)
        problems += _differing(path, module, kind)
    return problems


def class_name(cls: type) -> str:
    """A class as text, whether or not it can be imported."""
    return f"{cls.__module__}.{cls.__qualname__}"


def follow(start: Any, steps: tuple[Step, ...]) -> Any:
    """What one gets to by attributes and items.

    Raises:
        AttributeError, LookupError, TypeError: there is no such way.
    """
    for how, name in steps:
        start = getattr(start, str(name)) if how == "attribute" else start[name]
    return start


def _differing(path: str, module: Any, kind: ModuleKind) -> Iterator[str]:
    for fact in kind.facts:
        try:
            found = _read(fact, follow(module, fact.steps))
        except (AttributeError, LookupError, TypeError) as error:
            found = error
        if not _same(fact, found):
            shown = "nothing" if isinstance(found, Exception) else repr(found)
            yield f"{_written(path, fact)}: expected {fact.value!r}, found {shown:.80}"


def _read(fact: Fact, value: Any) -> Any:
    """What of a value a fact is about."""
    match fact.kind:
        case "value":
            return value
        case "length":
            return len(value)
        case "class":
            return class_name(type(value))
        case "function":
            return Describer().function_text(value)


def _same(fact: Fact, found: Any) -> bool:
    if fact.kind not in ("class", "function") or not isinstance(found, str):
        return same_constant(fact.value, found)
    expected, *code = str(fact.value).split(" ")
    name, *own = found.split(" ")
    return code == own and _same_class(expected, name)


def _written(path: str, fact: Fact) -> str:
    steps = (f".{name}" if how == "attribute" else f"[{name!r}]" for how, name in fact.steps)
    text = (path + "".join(steps)).lstrip(".")
    return f"len({text})" if fact.kind == "length" else text


def _same_class(expected: str, found: str) -> bool:
    """A script's classes are in `__main__` in one process and in a module in another."""
    if expected == found:
        return True
    here, there = (name.removeprefix("__main__.") for name in (expected, found))
    return (here != expected and f".{found}".endswith(f".{here}")) or (
        there != found and f".{expected}".endswith(f".{there}")
    )
