"""Which module may import what."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import hotstart

SOURCE = Path(hotstart.__file__).parent
PAGE = SOURCE.parents[1] / "docs" / "layout.md"

ORDER = (
    (
        "version",
        "errors",
        "events",
        "telemetry",
        "faults",
        "targets",
        "options",
        "calls",
        "dtypes",
        "_torch",
    ),
    ("records", "model"),
    ("guards", "first_call"),
    ("runtime",),
    ("checkpoint", "artifact"),
    ("reporting",),
    ("torchfree", "c"),
    ("saving",),
    ("misses", "program"),
    ("loading", "profiling"),
    ("capture",),
    ("partition",),
    ("stitching",),
    ("compilers",),
    ("specialize",),
    ("native",),
    ("cache",),
    ("assemble", "build_report", "build_details", "debug_files", "repro_files"),
    ("build",),
    ("observing",),
    ("api",),
    ("submodule", "backend", "observation", "bisecting", "capture_obstacles"),
    ("hotstart",),
    ("integrations", "cli"),
    ("__main__",),
)
"""Folders and modules of the package, from what nothing is below to what is on top of everything.
A module imports what comes before it, and what is beside it without going round in circles."""

LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
BUILDING = {"capture", "partition", "stitching", "compilers", "specialize", "native"}

# Private in name only: the documented way to register a type.
PUBLIC_ENOUGH = {"torch.utils._pytree"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return set(done.stdout.split())


def test_what_runs_a_program_imports_nothing_that_compiles() -> None:
    found = imported_after("import hotstart.loading")
    assert "torch" in found
    heavy = ("torch._dynamo", "torch._inductor", "torch._functorch.aot", "sympy", "filelock")
    assert not {name for name in found if name.startswith(heavy)}
    own = {name.split(".")[1] for name in found if name.startswith("hotstart.")}
    assert "runtime" in own
    assert "artifact" in own
    assert not own & {*BUILDING, "cache", "cli"}


@pytest.mark.thorough
def test_ray_is_imported_by_one_module_when_it_is_asked_for() -> None:
    found = {
        path.name
        for path in modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        if name.split(".")[0] == "ray"
    }
    assert found == {"ray_cluster.py"}
    after = imported_after(
        "import hotstart.compilers.workers.ray_workers, hotstart.cli.warm_on_ray"
    )
    assert "hotstart.compilers.workers.ray_cluster" in after
    assert "ray" not in after


def test_the_package_itself_imports_no_torch() -> None:
    found = imported_after("import hotstart; hotstart.Dim('n', max=3); hotstart.ContractError")
    assert "torch" not in found


def test_what_a_file_says_is_read_without_torch() -> None:
    found = imported_after("import hotstart.records.artifact, hotstart.records.report")
    found |= imported_after("import hotstart.artifact.manifest, hotstart.artifact.inspection")
    assert "torch" not in found


def test_a_program_without_torch_imports_none() -> None:
    found = imported_after("import hotstart.torchfree.start, hotstart.torchfree.program")
    assert {"hotstart.runtime.entry.checks", "hotstart.runtime.entry.generated_entry"} <= found
    assert "torch" not in found


def root(node: ast.expr) -> str:
    """The name that attributes are taken of; empty if it is none."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every private name of torch's that a module mentions."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                found = [f"{module}.{alias.name}" for alias in names]
            case ast.Attribute() if root(node) == "torch":
                found = [ast.unparse(node)]
            case _:
                continue
        for name in found:
            parts = name.split(".")
            private = any(p.startswith("_") and not p.startswith("__") for p in parts[1:])
            if parts[0] == "torch" and private:
                yield node.lineno, name


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_private_names_of_torch_are_in_one_module(path: Path) -> None:
    if path.relative_to(SOURCE).parts[0] == "_torch":
        return
    tree = parsed(path)
    found = [
        f"{path.name}:{line}: {name}"
        for line, name in private_names(tree)
        if not any(name == known or name.startswith(f"{known}.") for known in PUBLIC_ENOUGH)
    ]
    assert not found


def name_of(path: Path) -> str:
    """A module's name within the package; `hotstart` for the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "hotstart"


@functools.cache
def imports() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, wherever the statement is."""
    known = set(map(name_of, modules()))

    def module_of(name: str) -> str:
        inner = name.removeprefix("hotstart").removeprefix(".")
        while inner and inner not in known:
            inner = inner.rpartition(".")[0]
        return inner or "hotstart"

    found: dict[str, set[str]] = {}
    for path in modules():
        names: set[str] = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        own = {module_of(name) for name in names if name.split(".")[0] == "hotstart"}
        found[name_of(path)] = own - {name_of(path)}
    return found


def test_no_import_points_up() -> None:
    up = [
        f"{module} -> {other}"
        for module, others in imports().items()
        if module != "hotstart"  # the package hands out names, each when it is asked for
        for other in others
        if LEVELS[other.split(".")[0]] > LEVELS[module.split(".")[0]]
    ]
    assert up == []


def test_no_imports_go_round_in_circles() -> None:
    left = dict(imports())
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert sorted(left) == []


def test_the_page_on_the_layout_has_the_same_levels() -> None:
    table = PAGE.read_text().partition("| level |")[2].partition("\n\n")[0].splitlines()[2:]
    levels = [set(re.findall(r"`(\w+)[./]", row.split("|")[1])) for row in table]
    assert levels == [{"__init__" if n == "hotstart" else n for n in names} for names in ORDER]


def described(path: Path) -> str:
    """The first line of a module's docstring."""
    return (ast.get_docstring(parsed(path)) or "").partition("\n")[0]


def module_table(paths: Iterable[Path]) -> str:
    rows = ["| module | |", "| --- | --- |"]
    for path in paths:
        name = path.relative_to(SOURCE).with_suffix("").as_posix().removesuffix("__init__")
        rows.append(f"| `{name}` | {described(path)} |")
    return "\n".join(rows)


def module_tables() -> str:
    """The modules of the package and of each of its folders, from the lowest level upwards."""
    names = [name for level in ORDER for name in level if name != "hotstart"]
    top = [SOURCE / f"{name}.py" for name in names]
    made = [module_table(path for path in top if path.exists())]
    for name in names:
        first, *paths = sorted((SOURCE / name).rglob("*.py")) or [None]
        if first is not None:
            made.append(f"### `{name}/`\n\n{described(first)}\n\n{module_table(paths)}")
    return "\n\n".join(made) + "\n"


def test_the_page_on_the_layout_has_every_module() -> None:
    """`EXPECTTEST_ACCEPT=1` writes the tables."""
    text, heading, tables = PAGE.read_text().partition("| module | |")
    if os.environ.get("EXPECTTEST_ACCEPT"):
        PAGE.write_text(text + module_tables())
    else:
        assert heading + tables == module_tables()


@functools.cache
def defined_in(path: Path) -> set[str]:
    """Names that the statements of a module define, with those in its classes."""
    tree = parsed(path)
    defined = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, defined)}


def test_the_page_on_the_layout_names_what_is_there() -> None:
    missing = []
    for text in re.findall(r"`((?:\w+/)+\w+(?:\.\w+)*)`", PAGE.read_text()):
        module, *names = text.removesuffix(".py").split(".")
        if module.split("/")[0] not in LEVELS or text.endswith((".cpp", ".h")):
            continue
        path = SOURCE / f"{module}.py"
        if not path.exists() or not set(names) <= defined_in(path):
            missing.append(text)
    assert missing == []
