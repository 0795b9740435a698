"""What tests of caches share."""

from __future__ import annotations

import copy

from hotstart import Program, Store
from hotstart.options import CachePolicy


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
