"""Make the C library keep memory that calls have freed, or give it back."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Mapping

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Names of settings, as in glibc's `malloc.h`."""

_KEPT = 1 << 30
"""Bytes at the end of a heap that may be free before the system gets them back."""

_LARGEST = 1 << 25
"""Bytes from which on a tensor gets pages of its own; glibc takes no larger number."""


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep what a call frees for the next call, in this process from now on.

    By default it returns large tensors to the system, which fills their pages with zeros in every
    call again while other threads wait: a tenth of the time of many a call. What somebody has set
    by an environment variable stays.
    """
    adjust = None if _is_set(os.environ) else _function("mallopt")
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, _LARGEST)
        adjust(_TRIM_THRESHOLD, _KEPT)


def _is_set(environment: Mapping[str, str]) -> bool:
    """Tell whether somebody has chosen what glibc keeps."""
    names = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    tunables = environment.get("GLIBC_TUNABLES", "")
    return "threshold" in tunables or any(name in environment for name in names)


def trim_heap() -> None:
    """Have the C library give the system what it has free, where it has a call for that.

    glibc keeps the memory of small tensors, between others that are still in use.
    """
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library's; None if this one has none of that name."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), name, None)
