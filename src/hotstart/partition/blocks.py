"""Find repeated blocks: submodules that occur again with the same structure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from torch import fx

SMALLEST = 4
"""Blocks of fewer nodes are left alone: cutting them out would cost more fusion than it saves."""

Digest = Callable[[Sequence[fx.Node]], Hashable]


@dataclass(eq=False)
class Call:
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
    calls: list[Call] = field(default_factory=list)


def path_of(node: fx.Node) -> str:
    """Path of the innermost submodule a node was traced in; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return _clean(next(reversed(stack.values()))[0]) if stack else ""


def repeated_blocks(nodes: Sequence[fx.Node], digest: Digest) -> dict[fx.Node, Call]:
    """The block each node is part of, for the outermost submodules that are repeated.

    Submodules called side by side are compared; if two of a class have the same digest, all of
    that class there are blocks, and nothing inside them is looked at.
    """
    found: dict[fx.Node, Call] = {}
    pending = [_call_tree(nodes)]
    while pending:
        families: dict[str, list[Call]] = defaultdict(list)
        for call in pending.pop().calls:
            families[call.cls].append(call)
        for family in families.values():
            if _repeats(family, digest):
                found |= {node: call for call in family for node in call.nodes}
            else:
                pending += family
    return found


def _repeats(family: list[Call], digest: Digest) -> bool:
    """Whether two calls of a family, each large enough to be a piece, are the same."""
    large = [call for call in family if call.calls and len(call.nodes) >= SMALLEST]
    seen: set[Hashable] = set()
    for call in large:
        key = digest(call.nodes)
        if key in seen:
            return True
        seen.add(key)
    return False


def _call_tree(nodes: Sequence[fx.Node]) -> Call:
    root = Call("", "")
    known: dict[tuple[Hashable, ...], Call] = {(): root}
    for node in nodes:
        chain: tuple[Hashable, ...] = ()
        call = root
        for key, (path, cls) in (node.meta.get("nn_module_stack") or {}).items():
            inner = (*chain, key)
            if inner not in known:
                known[inner] = Call(_clean(path), getattr(cls, "__qualname__", str(cls)))
                call.calls.append(known[inner])
            chain, call = inner, known[inner]
            call.nodes.append(node)
    return root


def _clean(path: str) -> str:
    """`model.layers.0` from Dynamo's `L['self']._modules['model'].layers.0`."""
    plain = re.sub(r"\._modules\['([^']+)'\]", r".\1", path)
    return re.sub(r"^L\['\w+'\]\.?", "", plain)
