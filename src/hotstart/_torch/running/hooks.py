"""Hooks that run at every call of any module, and modules that `torch.compile` wrapped."""

from __future__ import annotations

import sys
from typing import Any


def is_compiled(model: Any) -> bool:
    """Tell whether `torch.compile` made something of a module or of a function."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is None:
        return False  # nothing was compiled yet, and importing it takes seconds
    made = hasattr(model, "_torchdynamo_orig_callable")
    disabled = getattr(model, "_torchdynamo_disable", False)
    return isinstance(model, dynamo.OptimizedModule) or (made and not disabled)


def global_hook_dicts() -> dict[str, dict[int, Any]]:
    """The dicts of hooks that run at every call of any module, by name."""
    from torch.nn.modules import module

    return {
        "_global_forward_hooks": module._global_forward_hooks,
        "_global_forward_pre_hooks": module._global_forward_pre_hooks,
    }


def global_hooks() -> dict[str, dict[int, Any]]:
    """Those of which there are some."""
    return {name: held for name, held in global_hook_dicts().items() if held}
