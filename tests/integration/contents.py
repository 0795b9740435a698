"""Objects that tests pass to models, and how they are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from hotstart.records.nested import attributes_of

R = torch.randn


@dataclasses.dataclass
class State:
    h: Tensor
    steps: int = 0


class Layer:
    def __init__(self, h: Tensor) -> None:
        self.h = h
        self.seen = [h * 2]


MODE = Layer(R(1))
"""An object that the module of its class names, as it names a flag."""


class Slotted:
    __slots__ = ("extra", "h")

    def __init__(self, h: Tensor) -> None:
        self.h = h


def same(found: Any, expected: Any) -> bool:
    """Whether two values of containers, objects and tensors are equal, in types and order too."""
    if type(found) is not type(expected):
        return False
    if isinstance(expected, Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k]) for k in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, State | Layer | Slotted):
        return same(attributes_of(found), attributes_of(expected))
    return bool(found == expected)
