"""Run generated source, in a way that tracebacks, debuggers and profilers can show."""

from __future__ import annotations

import hashlib
import linecache
import marshal
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotstart.records.shapes import Variant


def run_source(
    source: str, filename: str, scope: Mapping[str, Any], compiled: bytes | memoryview = b""
) -> dict[str, Any]:
    """Execute a generated module in a scope of its own and return the scope.

    Args:
        source: the module.
        filename: what tracebacks show.
        scope: names that the module finds defined.
        compiled: what `bytecode` made of the source, if that is at hand.
    """
    # An entry without a modification time is kept when the cache is checked against the disk.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace = {"__name__": "hotstart.generated", "__file__": filename, **scope}
    code = marshal.loads(compiled) if compiled else compile(source, filename, "exec")
    # Only source that hotstart or the compiler generated comes here.
    exec(code, namespace)  # noqa: S102
    return namespace


def bytecode(source: str, filename: str) -> bytes:
    """A module compiled for this version of Python.

    The same source gives the same bytes: newer versions of the format say which objects were
    shared while compiling, which differs from run to run.
    """
    return marshal.dumps(compile(source, filename, "exec"), 2)


def unit_filename(key: str) -> str:
    """What tracebacks show for a unit."""
    return f"hotstart/unit_{key[:12]}.py"


def stitched_filename(variant: Variant, source: str) -> str:
    """What tracebacks show for a variant: a name that no other program's code has."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    return f"hotstart/{stitched_name(variant)}_{digest}.py"


def stitched_name(variant: Variant) -> str:
    """A variant's name as part of a file name."""
    name = variant.name.replace("..", "_to_").replace("==", "is")
    return "stitched_" + re.sub(r"\W+", "_", name).strip("_")
