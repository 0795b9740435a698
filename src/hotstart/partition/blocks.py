"""Find repeated blocks: submodules that occur again with the same structure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import fx

SMALLEST = 4
"""Blocks of fewer nodes are left alone: cutting them out would cost more fusion than it saves."""

SMALLEST_LEAF = 24
"""Modules of fewer nodes that call no other module are left alone: a norm is better fused."""

_IN_DICT = re.compile(r"\.?\b__dict__\['_modules'\]\['([^']+)'\]")

Digest = Callable[[Sequence[fx.Node]], Hashable]


@dataclass(eq=False)
class ModuleCall:
    """One call of a submodule while tracing.

    Attributes:
        path: the submodule's path from the model.
        cls: its class' name.
        nodes: everything that was traced inside the call.
        calls: the calls made directly inside it, in order.
    """

    path: str
    cls: str
    nodes: list[fx.Node] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)


def path_of(node: fx.Node) -> str:
    """Path of the innermost submodule a node was traced in; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return _plain(str(next(reversed(stack.values()))[0])) if stack else ""


def paths_of(node: fx.Node) -> list[str]:
    """Paths of the submodules a node was traced in, from the outermost to the innermost."""
    stack = node.meta.get("nn_module_stack") or {}
    return [_plain(path) for path, _ in stack.values() if path]


def _plain(path: str) -> str:
    """Write a path as `named_modules` does where Dynamo found a child in the model's `__dict__`.

    It looks there for models with a `__getattr__` of their own, such as those of diffusers.
    """
    return _IN_DICT.sub(r".\1", path).removeprefix(".")


def repeated_blocks(nodes: Sequence[fx.Node], digest: Digest) -> dict[fx.Node, ModuleCall]:
    """Map each node to its block, for the outermost submodules that are repeated.

    Submodules called side by side are compared; if two of a class have the same digest, all of
    that class there are blocks, and no block is looked for inside them.
    """
    found: dict[fx.Node, ModuleCall] = {}
    pending = [_call_tree(nodes)]
    while pending:
        families: dict[str, list[ModuleCall]] = defaultdict(list)
        for call in pending.pop().calls:
            families[call.cls].append(call)
        for family in families.values():
            if _repeats(family, digest):
                found |= {node: call for call in family for node in call.nodes}
            else:
                pending += family
    return found


def _repeats(family: list[ModuleCall], digest: Digest) -> bool:
    """Tell whether two calls of a family are the same and large enough to be pieces."""
    large = [c for c in family if len(c.nodes) >= (SMALLEST if c.calls else SMALLEST_LEAF)]
    if len(large) < 2:
        return False
    seen: set[Hashable] = set()
    for call in large:
        key = digest(call.nodes)
        if key in seen:
            return True
        seen.add(key)
    return False


def _call_tree(nodes: Sequence[fx.Node]) -> ModuleCall:
    root = ModuleCall("", "")
    known: dict[tuple[Hashable, ...], ModuleCall] = {(): root}
    for node in nodes:
        chain: tuple[Hashable, ...] = ()
        call = root
        for key, (path, cls) in (node.meta.get("nn_module_stack") or {}).items():
            # A module shared by two paths has one key; one called twice has one path.
            inner = (*chain, (key, path))
            if inner not in known:
                known[inner] = ModuleCall(path, getattr(cls, "__qualname__", str(cls)))
                call.calls.append(known[inner])
            chain, call = inner, known[inner]
            call.nodes.append(node)
    return root
