"""Settings of a whole process that decide how torch compiles."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch

from hotstart._torch.running.modes import autocast_state

CONFIGS = (
    "torch._dynamo.config",
    "torch._inductor.config",
    "torch._functorch.config",
    "torch.fx.experimental._config",
)

_NO_MATTER = {"cache", "threads", "limit", "log", "logging", "debug", "verbose", "worker"}
"""Settings with these words in their names change how, not what, torch compiles."""


def compile_state() -> dict[str, str]:
    """List the settings that decide how torch compiles, as text by name."""
    found = {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "mkldnn": str(torch.backends.mkldnn.enabled),
        "autocast": str(autocast_state()),
    }
    for module in CONFIGS:
        for name, value in set_in(module):
            if _NO_MATTER.isdisjoint(name.replace(".", "_").split("_")):
                found[f"{module}.{name}"] = repr(value)
    return found


def set_in(module: str) -> Iterator[tuple[str, Any]]:
    """Names and values of what was set in a configuration of torch, and is not its default.

    Read from `_config` (2.11 to 2.15). Nobody can have set anything in one that is not imported.
    """
    for name, entry in getattr(sys.modules.get(module), "_config", {}).items():
        given = entry.user_override
        given = given.get() if isinstance(given, ContextVar) else given  # as it is up to 2.11
        if type(given) is not object and given != entry.default:
            yield name, given
