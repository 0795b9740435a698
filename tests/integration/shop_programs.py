"""Programs of the shop, run op by op unless a test says otherwise."""

from __future__ import annotations

from typing import Any

import torch

import hotstart
from tests.integration.shop import Shop

EAGER = hotstart.Options(compiler="op_by_op")


def shop() -> Shop:
    torch.manual_seed(0)
    return Shop().eval()


def build(model: Any = None, *args: Any, **more: Any) -> hotstart.Program:
    given = args or (torch.zeros(4, 8),)
    return hotstart.compile(model or shop(), given, **{"options": EAGER, **more})
