"""Run generated source, in a way that tracebacks, debuggers and profilers can show."""

from __future__ import annotations

import hashlib
import linecache
import marshal
import re
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from typing import Any

from hotstart.records.artifact import Blob, Code
from hotstart.records.shapes import Variant

_MODULE = "hotstart.generated"


class _Text:
    """A loader that has the text of a module, which is in no file, for debuggers."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_source(self, name: str) -> str:
        """The text, as the line cache asks for it."""
        return self._text


def run_source(
    source: str, filename: str, scope: Mapping[str, Any], compiled: bytes | memoryview = b""
) -> dict[str, Any]:
    """Execute a generated module in a scope of its own and return the scope.

    Args:
        source: the module.
        filename: what tracebacks show.
        scope: names that the module finds defined.
        compiled: its bytecode, if that is at hand.
    """
    # An entry without a modification time is kept when the cache is checked against the disk.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    loader: Any = _Text(source)
    namespace = {
        "__name__": _MODULE,
        "__file__": filename,
        # Debuggers make the name of a file absolute, so the line cache has no such entry.
        "__loader__": loader,
        "__spec__": ModuleSpec(_MODULE, loader),
        **scope,
    }
    code = marshal.loads(compiled) if compiled else compile(source, filename, "exec")
    # Only source that hotstart or the compiler generated comes here.
    exec(code, namespace)  # noqa: S102
    return namespace


def run_code(code: Code, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Execute generated code, as `run_source` does."""
    return run_source(code.text, code.filename, scope, code.bytecode.data)


def code_of(name: str, source: str) -> Code:
    """A generated module as it is kept in artifacts: with the bytecode of this version of Python.

    The same source gives the same bytes: newer versions of the format say which objects were
    shared while compiling, which differs from run to run.
    """
    filename = f"hotstart/{name}.py"
    bytecode = marshal.dumps(compile(source, filename, "exec"), 2)
    return Code(filename, Blob(f"{name}.py", source.encode()), Blob(f"{name}.bytecode", bytecode))


def unit_code(key: str, source: str) -> Code:
    """The code of a unit, named after its key."""
    return code_of(f"unit_{key[:16]}", source)


def stitched_code(variant: Variant, source: str) -> Code:
    """The code of a variant, under a name that no other program's code has."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    return code_of(f"{stitched_name(variant)}_{digest}", source)


def stitched_name(variant: Variant) -> str:
    """A variant's name as part of a file name."""
    name = variant.name.replace("..", "_to_").replace("==", "is")
    return "stitched_" + re.sub(r"\W+", "_", name).strip("_")
