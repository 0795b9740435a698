"""Records of what a program was compiled for. Nothing here imports torch."""

from typing import Literal, TypeAlias

import msgspec

Step: TypeAlias = tuple[Literal["attribute", "item", "key", "entry", "class"], str | int]
"""One step from an object to what it holds: an attribute, an item of a container, the key or the
value of a dict's entry of that number, or its class, which needs no name.
"""

Kind: TypeAlias = Literal[
    "value", "length", "keys", "class", "function", "code", "method", "inside", "tensor",
    "attribute", "own", "contains", "group", "unknown",
]  # fmt: skip
"""What counts of something that a trace read: its value, its length, its keys, the name of its
class, what it does as a function, everything inside it, all of it as a tensor, which is part of
the program, or the size of a group of processes or the shape of a mesh of them; or whether the last
step leads anywhere: to an attribute, to one of the object's own, to an item. Of what a trace ran,
`"code"` is a function where it is found by name, and `"method"` all that a class and its bases
define under a name. Of what is `"unknown"` nothing can be said.
"""

Start: TypeAlias = Literal["python", "environment", "closure", "self", "target", "ranks"]
"""Where steps start outside of a model's modules: at a Python module, at a variable of the
environment, at the variables that a compiled function closes over, at the object that a compiled
method is of, at the function or method that is compiled, or at what this process is among others.
"""

Change: TypeAlias = tuple[str, str, str]
"""What changed, what it was, and what it is."""


class ProgramKey(msgspec.Struct, frozen=True):
    """The key of a program.

    Attributes:
        digest: 32 letters of hexadecimal.
        parts: what it was made of, by name.
    """

    digest: str
    parts: dict[str, str]


class Guard(msgspec.Struct, frozen=True):
    """Something that code was compiled for.

    Attributes:
        steps: attributes and items on the way to it.
        kind: what of it counts.
        text: what that was; empty if nothing can be said.
    """

    steps: tuple[Step, ...]
    kind: Kind
    text: str


class ModuleKind(msgspec.Struct, frozen=True):
    """State of a module besides tensors, as it was read.

    Attributes:
        cls: the name of its class.
        guards: what was read, by steps from the module.
        own: hooks and methods that are the object's own, each by name and as a text of its code.
    """

    cls: str
    guards: tuple[Guard, ...]
    own: tuple[tuple[str, str], ...] = ()


class Seen(msgspec.Struct, frozen=True):
    """A guard on something outside of the model's modules.

    Attributes:
        start: where its steps start.
        name: the Python module or the variable of the environment; `"rank"`, `"world size"` or
            `"initialized"` of ranks; for the others, the path from the model to the method that is
            called.
        guard: what is there.
    """

    start: Start
    name: str
    guard: Guard


def written(start: str, kind: str, steps: tuple[Step, ...]) -> str:
    """Write what was read as code, as far as it can be."""
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
    """Write the place where something was seen."""
    match one.start:
        case "environment":
            start = f"environment {one.name}"
        case "ranks":
            start = f"{one.name} of torch.distributed"
        case "python":
            start = one.name
        case _:
            start = f"{one.start} {one.name}".rstrip()
    return written(start, one.guard.kind, one.guard.steps)
