"""Describe tensors of subclasses by all but their inner tensors, and compare them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from hotstart._torch.subclasses.inner_tensors import context_of, inner_names
from hotstart.guards.functions import class_name
from hotstart.guards.objects import Describer, Unknowable
from hotstart.guards.structure import same_class
from hotstart.model import Finder, Place
from hotstart.records.artifact import Requirements, Wrapping
from hotstart.records.guards import Change


def wrapping_of(tensor: torch.Tensor) -> Wrapping:
    """Describe a tensor of a subclass, and those inside of it that are of one, part by part.

    Raises:
        Unknowable: its context leads to something that nothing can be said of, or to a tensor.
    """
    return tuple(_parts("", tensor))


def _parts(path: str, tensor: torch.Tensor) -> Iterator[tuple[str, str]]:
    names = inner_names(tensor)
    layout = f"{list(tensor.shape)}"
    if tensor.layout is torch.strided:
        layout += f" strides {list(tensor.stride())}"
    yield f"type({path})", class_name(type(tensor))
    yield path, f"{tensor.dtype} {layout}"
    yield f"inner tensors of {path}".rstrip(), ", ".join(names)
    yield from _Context().describe(f"{path} context".lstrip(), context_of(tensor))
    for name in names:
        inner = getattr(tensor, name)
        if inner_names(inner):
            yield from _parts(f"{path}.{name}".lstrip("."), inner)


class _Context(Describer):
    """Describes contexts; refuses a tensor in one, since it would be a weight that no table has."""

    def text(self, value: Any) -> str | None:
        if isinstance(value, torch.Tensor):
            raise Unknowable("a tensor is in it")
        return super().text(value)


def compare_wrappings(
    requirements: Requirements, finder: Finder
) -> tuple[list[Change], list[tuple[Place, Any]]]:
    """Compare the weights of subclasses that a model has with those of the build.

    Returns:
        What differs, and the places of all of them with what they keep.
    """
    problems: list[Change] = []
    kept: list[tuple[Place, Any]] = []
    for one in requirements.taken_apart:
        expected = requirements.wrappings[one.wrapping]
        places = {name: finder.place(name) for name in (one.name, *one.ties)}
        tensor = None if (first := places[one.name]) is None else first.get()
        problems += wrapping_changes(one.name, expected, tensor)
        for name, place in places.items():
            if place is not None:
                kept.append((place, place.get()))
            if place is None or place.get() is not tensor:
                problems.append((name, f"the same tensor as {one.name}", "another or nothing"))
    return problems, kept


def wrapping_changes(name: str, expected: Wrapping, tensor: Any) -> list[Change]:
    """List what of a tensor is not what a weight of a subclass was."""
    (_, cls), (_, layout), *_ = expected
    if not isinstance(tensor, torch.Tensor):
        return [(name, f"a {cls} of {layout}", "nothing")]
    if not inner_names(tensor):
        return [(name, f"a {cls} of {layout}", class_name(type(tensor)))]
    try:
        found = wrapping_of(tensor)
    except Unknowable as error:
        return [(name, f"a {cls} of {layout}", str(error))]
    if not same_class(cls, found[0][1]):
        return [(name, f"a {cls} of {layout}", f"a {found[0][1]}")]
    wanted, given = dict(expected[1:]), dict(found[1:])
    return [
        (
            f"{name}: {part}" if part else name,
            wanted.get(part, "nothing"),
            given.get(part, "nothing"),
        )
        for part in dict.fromkeys((*wanted, *given))
        if wanted.get(part) != given.get(part)
    ]
