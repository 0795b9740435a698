"""Graphs of one test are not there in the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo.exc
import torch.fx.experimental._config


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()
