"""Find out whether a program takes torch, by the Python that is left around native code."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping

from hotstart.records.artifact import Artifact, Code

_IMPORT = re.compile(r"^(?:import (?P<module>\S+)|from (?P<home>\S+) import (?P<names>.+))$", re.M)
_OF_TORCH = re.compile(r"\btorch\.(\w+)(?!\w|\.)")
_DTYPES = re.compile(r"(?:float|bfloat|complex|int|uint|bool|qint|quint)\w*")
_CONSTANTS = frozenset(
    {"Size", "channels_last", "channels_last_3d", "contiguous_format", "device", "preserve_format"}
    | {"sparse_coo", "strided"}
)
"""What code takes of torch to name constants in results, besides dtypes."""

_ATTRIBUTE = re.compile(r"\b[A-Za-z_]\w*\.[A-Za-z_]\w*")
_HERE: Mapping[str, frozenset[str]] = {
    "hotstart.records.layout": frozenset({"fit"}),
    "hotstart.records.nested": frozenset({"assemble"}),
    "hotstart.records.trees": frozenset({"assemble"}),
}
"""What generated code imports of hotstart's, and a binding without torch has."""

_OF_ARRAYS = frozenset(
    {"T", "as_strided", "data", "detach", "mT", "numpy", "storage_offset", "stride"}
)
_OF_OTHERS = frozenset({"capsule", "clear", "update", "written"})
"""Attributes of bodies and of the caller's containers."""

_NUMBERS = frozenset({"storage_offset", "stride"})


def needs_torch(artifact: Artifact) -> str:
    """Say what of a program takes Python's torch; empty if nothing does that shows here."""
    native = artifact.native
    if native is None or None in native.runs:
        return "a variant runs as Python; Options(form='native') says at the build why"
    source = bytes(native.source.data).decode()
    if others := [name for name, _ in artifact.requirements.operators if f'"{name}"' in source]:
        return f"it calls {others[0]}, an operator that did not come with torch"
    for _, code in native.units:
        if reason := _imports(code) or _attributes(code):
            return reason
    axes = (len(call.contract.axes) for call in artifact.calls for _ in call.stitched)
    for count, run in zip(axes, native.runs, strict=True):
        assert run is not None
        if reason := _imports(run) or _uses(run, count):
            return reason
    return ""


def _imports(code: Code) -> str:
    """Say what code imports that is not there without torch."""
    header = f"\n{code.text}".partition("\ndef ")[0]
    for found in _IMPORT.finditer(header):
        module = found["module"] or found["home"]
        names = {part.partition(" as ")[0].strip() for part in (found["names"] or "").split(",")}
        if module == "math" or (found["names"] and names <= _HERE.get(module, frozenset())):
            continue
        if module == "torch" and _names_constants(code):
            continue
        if found["module"] or not _has_classes(module, names):
            return f"code around the native program has `{found[0]}`"
    return ""


def _names_constants(code: Code) -> bool:
    """Tell whether code takes nothing of torch but constants."""
    names = _OF_TORCH.findall(code.text)
    known = (name in _CONSTANTS or _DTYPES.fullmatch(name) for name in names)
    return len(names) == code.text.count("torch.") and all(known)


def _has_classes(module: str, names: set[str]) -> bool:
    """Tell whether names are classes of a module that comes with Python, or is imported already."""
    if module.partition(".")[0] not in sys.stdlib_module_names and module not in sys.modules:
        return False
    home = importlib.import_module(module)
    return all(isinstance(getattr(home, name, None), type) for name in names)


def _attributes(code: Code) -> str:
    """Say what code that binds a unit does with tensors besides to hand them on."""
    found = _ATTRIBUTE.search(f"\n{code.text}".partition("\ndef ")[2])
    return f"code that binds a unit has `{found[0]}`" if found else ""


def _uses(code: Code, axes: int) -> str:
    """Say what code that calls a variant does with tensors that arrays do not do."""
    text = (
        "    def run(" + code.text.partition("\n    def run(")[2].partition("\n    return run")[0]
    )
    (run,) = ast.parse(textwrap.dedent(text)).body
    assert isinstance(run, ast.FunctionDef)
    numbers = {argument.arg for argument in run.args.args[:axes]}
    imported = _imported(code)
    for statement in run.body:
        for node in ast.walk(statement):
            if not _is_known(node, numbers, imported):
                return f"what is left of a variant in Python has `{ast.unparse(node)}`"
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_number(value, numbers):
                numbers.add(name)
    return ""


def _imported(code: Code) -> set[str]:
    """The names of classes and modules that code imports."""
    header = ast.parse(f"\n{code.text}".partition("\ndef ")[0]).body
    imports = (each for each in header if isinstance(each, ast.Import | ast.ImportFrom))
    return {alias.asname or alias.name for each in imports for alias in each.names}


def _is_known(node: ast.AST, numbers: set[str], imported: set[str]) -> bool:
    match node:
        case ast.Attribute(ctx=ast.Load(), attr=attribute):
            root = node.value.id if isinstance(node.value, ast.Name) else ""
            return root in imported or attribute in _OF_ARRAYS | _OF_OTHERS
        case ast.BinOp() | ast.UnaryOp() | ast.Compare() | ast.BoolOp() | ast.IfExp():
            return _is_number(node, numbers)
        case ast.Subscript(ctx=ast.Load()):
            return _is_number(node.value, numbers)
    return True


def _is_number(node: ast.AST, numbers: set[str]) -> bool:
    """Tell whether an expression is computed from sizes, strides and offsets alone."""
    return all(name in numbers or name == "math" for name in _names(node))


def _names(node: ast.AST) -> Iterator[str]:
    """The names in an expression, but for those whose strides or offset are taken."""
    match node:
        case ast.Attribute(attr=attribute) if attribute in _NUMBERS:
            return
        case ast.Name(id=name):
            yield name
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
