"""Run generated source, in a way that tracebacks, debuggers and profilers can show."""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any


def run_source(source: str, filename: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Execute a generated module in a scope of its own and return the scope."""
    # An entry without a modification time is kept when the cache is checked against the disk.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = {"__name__": "hotstart.generated", "__file__": filename, **scope}
    # Only source that hotstart or the compiler generated comes here.
    exec(compile(source, filename, "exec"), namespace)  # noqa: S102
    return namespace
