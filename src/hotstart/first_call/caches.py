"""The caches of functions, which keep what a call that is undone has left in them."""

from __future__ import annotations

import functools
import gc
from typing import Any

_FOREIGN = ("torch", "sympy", "functools", "re", "typing")


class Caches:
    """Functions under `functools.lru_cache`, with how often each has computed so far."""

    def __init__(self) -> None:
        kind = type(functools.lru_cache(len))
        found = [obj for obj in gc.get_referrers(kind) if type(obj) is kind]  # they hold their type
        self._before: list[tuple[Any, int]] = [
            (cache, cache.cache_info().misses)
            for cache in found
            if str(cache.__module__).partition(".")[0] not in _FOREIGN
        ]

    def forget_new(self) -> None:
        """Empty those that have computed anything since."""
        for cache, misses in self._before:
            if cache.cache_info().misses != misses:
                cache.cache_clear()
