"""What a model takes from another file."""

from __future__ import annotations

from torch import Tensor

EXTRA = 3.0
SETTINGS = {"bias": [1.0, 2.0], "unread": [7.0]}


def scaled(x: Tensor) -> Tensor:
    return x * 0.5
