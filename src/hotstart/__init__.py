"""Compile a PyTorch model once, ahead of time; start it hot everywhere."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from hotstart.version import VERSION

if TYPE_CHECKING:
    from hotstart.api import compile, compute_key, load
    from hotstart.artifact.inspection import inspect
    from hotstart.artifact.manifest import Manifest
    from hotstart.bisecting.bisect import bisect
    from hotstart.bisecting.record import Bisection
    from hotstart.cache.store import Store
    from hotstart.calls import Call
    from hotstart.capture_obstacles import CaptureReport, explain_capture
    from hotstart.errors import (
        ArtifactError,
        CaptureError,
        CompileError,
        ContractError,
        CorruptArtifact,
        GroupMismatch,
        HotstartError,
        IncompatibleArtifact,
        ModelMismatch,
        OptionsError,
        PartitionError,
        RangeError,
        StoreError,
        UntrustedArtifact,
    )
    from hotstart.observation import observe
    from hotstart.observing.observed import ObservedCalls
    from hotstart.options import Options
    from hotstart.profiling.profile import profile
    from hotstart.profiling.ranges import profiler_ranges
    from hotstart.profiling.record import Profile
    from hotstart.program import Program
    from hotstart.records.dims import Dim
    from hotstart.submodule import compile_submodule, install, restore

__all__ = [
    "ArtifactError",
    "Bisection",
    "Call",
    "CaptureError",
    "CaptureReport",
    "CompileError",
    "ContractError",
    "CorruptArtifact",
    "Dim",
    "GroupMismatch",
    "HotstartError",
    "IncompatibleArtifact",
    "Manifest",
    "ModelMismatch",
    "ObservedCalls",
    "Options",
    "OptionsError",
    "PartitionError",
    "Profile",
    "Program",
    "RangeError",
    "Store",
    "StoreError",
    "UntrustedArtifact",
    "bisect",
    "compile",
    "compile_submodule",
    "compute_key",
    "explain_capture",
    "inspect",
    "install",
    "load",
    "observe",
    "profile",
    "profiler_ranges",
    "restore",
]

__version__ = VERSION

# Names are imported when they are first asked for, so that the command line and everything else
# that needs no torch starts without it. Where torch is there already, what a start needs is
# imported now, and not in the first load.
_HOMES = {
    "CaptureReport": "hotstart.capture_obstacles",
    "explain_capture": "hotstart.capture_obstacles",
    "bisect": "hotstart.bisecting.bisect",
    "Bisection": "hotstart.bisecting.record",
    "compile": "hotstart.api",
    "compile_submodule": "hotstart.submodule",
    "compute_key": "hotstart.api",
    "inspect": "hotstart.artifact.inspection",
    "install": "hotstart.submodule",
    "load": "hotstart.api",
    "Call": "hotstart.calls",
    "Manifest": "hotstart.artifact.manifest",
    "restore": "hotstart.submodule",
    "observe": "hotstart.observation",
    "ObservedCalls": "hotstart.observing.observed",
    "Dim": "hotstart.records.dims",
    "Options": "hotstart.options",
    "Profile": "hotstart.profiling.record",
    "profile": "hotstart.profiling.profile",
    "profiler_ranges": "hotstart.profiling.ranges",
    "Program": "hotstart.program",
    "Store": "hotstart.cache.store",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hotstart' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES.get(name, "hotstart.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if sys.modules.get("torch") is not None:
    importlib.import_module("hotstart.api")
    importlib.import_module("hotstart.loading")
