"""What tests of caches share."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart import Dim, Options, Program, Store
from hotstart.options import CachePolicy
from tests.integration.changing import Changing

X = torch.randn(3, 4)
EAGER = Options(compiler="op_by_op")
BATCH = {"x": {0: Dim("batch", min=2, max=8)}}
Patch = pytest.MonkeyPatch


def origin(program: Program) -> str:
    """Whether a program was loaded, or compiled: maybe from pieces that were there already."""
    return "compiled" if "capture" in program.report.phases else "loaded"


def with_(store: Store, policy: CachePolicy = "build", extra_key: str = "") -> Store:
    """The same store, which is asked for something else; what is no store as it is."""
    if not isinstance(store, Store):
        return store
    asked = copy.copy(store)
    asked.policy, asked.extra_key = policy, extra_key
    return asked


def model() -> Changing:
    torch.manual_seed(0)
    return Changing().eval()


def asked(
    store: Store,
    model: Any,
    x: Tensor = X,
    policy: CachePolicy = "build",
    extra_key: str = "",
    **more: Any,
) -> str:
    """Compile with a cache; whether the program was loaded or compiled. It has to be right."""
    settings = {"options": EAGER, "dynamic_shapes": BATCH, **more}
    program = hotstart.compile(model, (x,), cache=with_(store, policy, extra_key), **settings)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x))
    return origin(program)
