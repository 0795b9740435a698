"""Records of what a program was compiled for. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Step: TypeAlias = tuple[Literal["attribute", "item", "key", "entry", "class"], str | int]
"""One step from an object to what it holds: an attribute, an item of a container, the key or the
value of a dict's entry of that number, or its class, which needs no name.
"""

Kind: TypeAlias = Literal[
    "value", "length", "keys", "class", "function", "inside", "tensor", "attribute", "own",
    "contains", "unknown",
]  # fmt: skip
"""What counts of something that was read: see `Seen`."""

Change: TypeAlias = tuple[str, str, str]
"""What changed, what it was, and what it is."""


class Key(msgspec.Struct, frozen=True):
    """The key of a program.

    Attributes:
        digest: 32 letters of hexadecimal.
        parts: what it was made of, by name.
    """

    digest: str
    parts: dict[str, str]


class Seen(msgspec.Struct, frozen=True):
    """Something that code was compiled for and that no module of the model says.

    Attributes:
        start: `"model"`, `"python"` or `"environment"`.
        name: path of a module of the model, name of a Python module, or an environment variable.
        steps: attributes and items on the way from there.
        kind: what of it counts: its value, its length, its keys, its class, what it does as a
            function, everything inside it, or all of it as a tensor, which is part of the program;
            or whether the last step leads anywhere: to an attribute, to one of the object's own, to
            an item. Of what is `"unknown"` nothing can be said.
        text: what that was; empty if nothing can be said.
    """

    start: Literal["model", "python", "environment"]
    name: str
    steps: tuple[Step, ...]
    kind: Kind
    text: str


def written(start: str, kind: str, steps: tuple[Step, ...]) -> str:
    """What was read, as code says it as far as it can."""
    text = start
    for how, name in steps:
        match how:
            case "attribute":
                text = f"{text}.{name}".lstrip(".")
            case "item":
                text = f"{text or 'model'}[{name!r}]"
            case "class":
                text = f"type({text or 'model'})"
            case _:
                text = f"{how} {name} of {text}"
    text = text or "model"
    match kind:
        case "length":
            return f"len({text})"
        case "keys" | "attribute" | "own" | "contains" | "inside":
            return f"{kind} {text}"
    return text


def described(one: Seen) -> str:
    """Where something was seen."""
    start = f"environment {one.name}" if one.start == "environment" else one.name
    return written(start, one.kind, one.steps)
