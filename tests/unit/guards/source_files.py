"""A package whose sources are recorded in one process and compared in another."""

from __future__ import annotations

import types
from pathlib import Path

from hotstart.guards.codes import codes_in
from hotstart.guards.sources import Source, changed_sources


def functions(*files: str) -> list[types.CodeType]:
    """The code of all functions in some files."""
    return [
        code
        for file in files
        for code in codes_in(compile(Path(file).read_bytes(), file, "exec"))
        if code.co_name != "<module>"
    ]


def changed(recorded: dict[str, Source], loose: bool = False) -> list[tuple[str, str, str]]:
    return changed_sources(recorded, loose)


FUNCTION = "def f(x):\n    return x\n"


def package(folder: Path, content: str = FUNCTION) -> Path:
    """A package `hs_pack` with modules `hs_pack.part` and `hs_pack.inner.leaf`."""
    for name in ("__init__.py", "part.py", "inner/__init__.py", "inner/leaf.py"):
        file = folder / "hs_pack" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


RECORD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import hs_pack.part, hs_pack.inner.leaf
import msgspec
from hotstart.guards.sources import sources
modules = [hs_pack, hs_pack.part, hs_pack.inner.leaf]
print(json.dumps(msgspec.to_builtins(sources([m.f.__code__ for m in modules]))))
"""


COMPARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import msgspec
from hotstart.guards.sources import Source, changed_sources
recorded = msgspec.convert(json.loads(sys.argv[2]), dict[str, Source])
changed = changed_sources(recorded, loose=False)
print(json.dumps([changed, [name for name in sys.modules if name.startswith("hs_pack")]]))
"""
