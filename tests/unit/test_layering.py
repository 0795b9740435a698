"""Which module may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hotstart

SOURCE = Path(hotstart.__file__).parent
STAGES = ["capture", "partition", "compilers", "codegen", "stitching", "loading", "runtime"]

# Private in name only: the documented way to register a type.
PUBLIC_ENOUGH = {"torch.utils._pytree"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return set(done.stdout.split())


def test_what_runs_a_program_imports_nothing_that_compiles() -> None:
    found = imported_after("import hotstart.loading, hotstart.runtime.program")
    assert "torch" in found
    heavy = ("torch._dynamo", "torch._inductor", "torch._functorch.aot", "sympy")
    assert not {name for name in found if name.startswith(heavy)}
    stages = {name.split(".")[1] for name in found if name.startswith("hotstart.")}
    assert not stages & {"capture", "partition", "compilers", "codegen", "stitching", "cli"}


def test_the_package_itself_imports_no_torch() -> None:
    found = imported_after("import hotstart; hotstart.Dim('n', max=3); hotstart.ContractError")
    assert "torch" not in found


def private_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of every private name of torch's that a module mentions."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                found = [f"{module}.{alias.name}" for alias in names]
            case ast.Attribute():
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
    if path.parent.name == "_torch":
        return
    tree = ast.parse(path.read_text())
    found = [
        f"{path.name}:{line}: {name}"
        for line, name in private_names(tree)
        if not any(name == known or name.startswith(f"{known}.") for known in PUBLIC_ENOUGH)
    ]
    assert not found


@pytest.mark.parametrize("stage", ["loading", "runtime"])
def test_loading_and_running_know_no_other_stage(stage: str) -> None:
    allowed = {"loading": {"loading", "runtime"}, "runtime": {"runtime"}}[stage]
    for path in (SOURCE / stage).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hotstart."):
                first = str(node.module).split(".")[1]
                assert first not in STAGES or first in allowed, f"{path.name}:{node.lineno}"
