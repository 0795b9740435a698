"""What the conformance suite knows of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

Sizes = Mapping[str, int]
"""A size for every axis, by name."""


@dataclass(frozen=True)
class Entry:
    """An architecture: how to build it, and how to call it at any size.

    Attributes:
        name: unique, such as `qwen3-moe`.
        family: the heading it stands under in the table, such as `mixture of experts`.
        make: builds the model with random weights, or with real ones where a package has them.
        inputs: keyword arguments of a call at given sizes, with real contents.
        dynamic_shapes: as `hotstart.compile` takes it; its `Dim`s say which sizes are served.
        example: the sizes of the example call that is compiled.
        blocks: how many repeated layers it has, so that unique pieces can be compared with depth.
        deeper: builds the same model with more repeated layers; None if it has none to repeat.
        atol: largest difference to eager that is accepted, for outputs of the order of one.
        notes: what a reader of the table should know.
        exact: whether its captured graph computes what eager does, bit by bit. Not so if its code
            asks whether it is being compiled, and takes another way then.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    inputs: Callable[[Sizes], dict[str, Any]]
    dynamic_shapes: Mapping[str, Any]
    example: Sizes
    blocks: int = 0
    deeper: Callable[[], nn.Module] | None = None
    atol: float = 1e-4
    notes: str = ""
    exact: bool = True
