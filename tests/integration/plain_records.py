"""Classes of arguments and results whose module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass
class Settings:
    bias: Any
    gain: float = 2.0


class Pair(NamedTuple):
    left: Any
    right: Any


class State:
    def __init__(self, last: Any, count: Any) -> None:
        self.last = last
        self.count = count
