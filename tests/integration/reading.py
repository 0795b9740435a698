"""Models that ask their surroundings in every way forward can: what is there, and what is not."""

from __future__ import annotations

import dataclasses
import enum
import os
from typing import Any

from torch import Tensor, nn


class Settings:
    """Has no attribute unless one is set."""


class Mode(enum.Enum):
    """Of a global."""

    FAST = 1
    EXACT = 2


@dataclasses.dataclass
class Scale:
    """Of a global."""

    by: float = 2.0


class Group(list[float]):
    """Not Python's list."""


class Named(dict[str, float]):
    """Not Python's dict."""


class Word(str):
    """Not Python's text."""

    __slots__ = ()


class Holder:
    """Holds an object in its class."""

    scale = Scale()


SETTINGS = Settings()
GROUP = Group([2.0])
NAMED = Named(a=2.0)
WORD = Word("a")
HOLDER = Holder()
BY_SHAPE = {(3,): 2.0}
TABLE = {"a": 1.0}
EMPTY: dict[str, float] = {}
TAGS = {"a"}
PAIR = (1, 2)
NAMES = ["p", "q"]
MODE = Mode.FAST
SCALE = Scale()


def looked_up(name: str) -> str | None:
    """A variable of the environment."""
    return os.environ.get(name)


class AttributeOfGlobal(nn.Module):
    """Whether another object has an attribute."""

    def forward(self, x: Tensor) -> Tensor:
        given = getattr(SETTINGS, "extra", None)
        return x * 2 if given is None else x * given


class KeyOfGlobal(nn.Module):
    """Whether a dict has a key."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "b" in TABLE else x * 3


class KeyOfEmpty(nn.Module):
    """Whether a dict that has none has a key."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "b" in EMPTY else x * 3


class ItemOfSet(nn.Module):
    """Whether a set has an item."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "b" in TAGS else x * 3


class ItemOfTuple(nn.Module):
    """An item of a tuple."""

    def forward(self, x: Tensor) -> Tensor:
        return x * PAIR[1]


class ItemOfList(nn.Module):
    """Whether a list has an item."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "q" in NAMES else x * 3


class MemberOfEnum(nn.Module):
    """Which member a global is."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if MODE is Mode.FAST else x * 3


class FieldOfDataclass(nn.Module):
    """A field of a global."""

    def forward(self, x: Tensor) -> Tensor:
        return x * SCALE.by


class ItemOfOwnList(nn.Module):
    """An item of a list of another class."""

    def forward(self, x: Tensor) -> Tensor:
        return x * GROUP[0]


class ItemOfOwnDict(nn.Module):
    """An item of a dict of another class."""

    def forward(self, x: Tensor) -> Tensor:
        return x * NAMED["a"]


class TextOfOwnClass(nn.Module):
    """What a text of another class says."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if WORD == "a" else x * 3


class HeldByClass(nn.Module):
    """An attribute of what a class holds."""

    def forward(self, x: Tensor) -> Tensor:
        return x * HOLDER.scale.by


class KeyThatIsNoText(nn.Module):
    """An item by a tuple."""

    def forward(self, x: Tensor) -> Tensor:
        return x * BY_SHAPE[tuple(x.shape)]


class ItemsOfDict(nn.Module):
    """All keys and values of a dict, in order."""

    def forward(self, x: Tensor) -> Tensor:
        for key, value in TABLE.items():
            x = x * value if key == "a" else x + value + 5
        return x


class OwnAttribute(nn.Module):
    """Whether the module itself has an attribute."""

    extra: Any

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if hasattr(self, "extra") else x * 3


class OwnDict(nn.Module):
    """Whether a dict of the module has a key."""

    def __init__(self) -> None:
        super().__init__()
        self.given = {"k": 1}

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "z" in self.given else x * 3


class OwnSet(nn.Module):
    """Whether a set of the module has an item."""

    def __init__(self) -> None:
        super().__init__()
        self.tags = {"a"}

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if "z" in self.tags else x * 3


class EnvironmentByHelper(nn.Module):
    """A variable that another function looks up."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if looked_up("READING_SCALE") is None else x * 3


class SharingBlock(nn.Module):
    """A block with an object that others hold as well."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self.scale = scale
        self.norm = nn.Sequential(nn.LayerNorm(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale.by


class Sharing(nn.Module):
    """Blocks that hold one object, which a trace reads by the name of the first only."""

    def __init__(self) -> None:
        super().__init__()
        scale = Scale()
        self.blocks = nn.ModuleList(SharingBlock(scale) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SharingWithGlobal(Sharing):
    """Blocks that hold the object of a global, which is read first."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.scale = HOLDER.scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * HOLDER.scale.by)
