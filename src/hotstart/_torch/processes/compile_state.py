"""Say what is set for a whole process and decides how torch compiles."""

from __future__ import annotations

import sys
from contextvars import ContextVar

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
    """The settings of a whole process that decide how torch compiles, by name.

    Configurations (`_config`, 2.11 to 2.15) count by what was set in them; nobody can have set
    anything in one that is not imported.
    """
    found = {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "matmul precision": torch.get_float32_matmul_precision(),
        "mkldnn": str(torch.backends.mkldnn.enabled),
        "autocast": str(autocast_state()),
    }
    for module in CONFIGS:
        entries = getattr(sys.modules.get(module), "_config", {})
        for name, entry in entries.items():
            given = entry.user_override
            given = given.get() if isinstance(given, ContextVar) else given  # as it is up to 2.11
            changed = type(given) is not object and given != entry.default
            if changed and _NO_MATTER.isdisjoint(name.replace(".", "_").split("_")):
                found[f"{module}.{name}"] = repr(given)
    return found
