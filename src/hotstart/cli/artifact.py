"""`hotstart inspect`, `verify`, `load-check` and `keygen`. Nothing here imports torch."""

from __future__ import annotations

import base64
import math
import re
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from hotstart.artifact import compatibility, container, inspection
from hotstart.artifact.compatibility import part_text
from hotstart.artifact.header import FORMAT, SEVERAL
from hotstart.artifact.manifest import MALFORMED, Manifest, TensorLayout
from hotstart.cli import flags
from hotstart.cli.factory import see_working_folder
from hotstart.cli.output import say, say_json, tell
from hotstart.errors import CorruptArtifact
from hotstart.guards.sources import Source
from hotstart.records.artifact import CompiledUnit, StitchedCall, WeightSpec
from hotstart.records.contract import Contract, Parameter
from hotstart.records.nested import (
    Const,
    Map,
    Slot,
    Tree,
    children,
)
from hotstart.records.report import PieceInfo
from hotstart.records.shapes import spanned
from hotstart.records.table import columns, memory
from hotstart.targets import TargetName

_WIDTH = 100
_LONGEST = 60
"""Characters of a cell that is not its row's last; those are wrapped."""

_HOW = {"positional_only": "by position only", "keyword": "by keyword only"}
_MODES = {None: "a function", False: "a module in eval mode", True: "a module in training mode"}


def add_inspect(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart inspect`."""
    _add_file(command)
    command.add_argument(
        "--target",
        choices=get_args(TargetName),
        help="the target to show of a file with several; by default the one that a load takes here",
    )
    flags.add_json(command, "manifest")
    command.set_defaults(run=_inspect)


def _inspect(given: Namespace) -> None:
    """Print what an artifact says of itself; blobs are not read.

    Raises:
        ArtifactError: as `hotstart.inspect`.
    """
    if given.json:
        say_json(inspection.inspect_json(given.file, given.target))
        return
    manifest = inspection.inspect(given.file, given.target)
    try:
        text = "\n\n".join(_sections(given.file, manifest))
    except MALFORMED as error:
        expected = "what hotstart writes"
        raise CorruptArtifact(given.file, "manifest", expected, f"this: {error}") from error
    say(text)


def add_verify(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart verify`."""
    _add_file(command)
    flags.add_json(command)
    flags.add_trusted(command)
    command.set_defaults(run=_verify)


def _verify(given: Namespace) -> None:
    """Check every byte, and the signature if there are keys.

    Raises:
        ArtifactError: as `inspection.verify`.
    """
    found = inspection.verify(given.file, given.trusted_key)
    trusted = given.trusted_key is not None
    key = found["signed_by"]
    tell(
        given,
        {"ok": True, "file": str(given.file), **found, "trusted": trusted},
        f"{given.file}: all {found['bytes']} bytes are as they were written",
        f"signature: {f'by {key}, which is trusted' if trusted else _signature(key)}",
    )


def add_load_check(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart load-check`."""
    _add_file(command)
    flags.add_json(command)
    command.add_argument(
        "--no-source",
        action="store_true",
        help="do not compare the Python source that was traced with what is here",
    )
    command.set_defaults(run=_load_check)


def _load_check(given: Namespace) -> None:
    """Say whether an artifact fits this process and its working folder.

    Raises:
        ArtifactError: as `compatibility.load_check`.
    """
    see_working_folder()
    compatibility.load_check(given.file, compare_source=not given.no_source)
    tell(given, {"ok": True, "file": str(given.file)}, f"{given.file} fits here")


def add_keygen(command: ArgumentParser) -> None:
    """Declare the flags of `hotstart keygen`."""
    command.add_argument(
        "file",
        type=Path,
        metavar="PRIVATE_KEY_FILE",
        help="where to write the private key; the public key goes beside it, with .pub added",
    )
    command.set_defaults(run=_keygen)


def _keygen(given: Namespace) -> None:
    """Write a key pair; the public key goes to stdout.

    Raises:
        ArtifactError: as `signing.generate`.
    """
    from hotstart.artifact.signing import generate

    public, text = generate(given.file)
    say(f"wrote {given.file}, to be kept secret, and {public}, to be given away", sys.stderr)
    say(text)


def _add_file(command: ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="an artifact")


# --- as text --------------------------------------------------------------------------------------


def _sections(file: Path, manifest: Manifest) -> Iterator[str]:
    parts = dict(manifest.fingerprint)
    sources = msgspec.convert(parts.pop("sources", {}), dict[str, Source])
    size, key = file.stat().st_size, container.read_key(file)
    about = [
        ("format", str(SEVERAL if manifest.targets else FORMAT)),
        ("size", _bytes(size)),
        ("signature", _signature(None if key is None else base64.b64encode(key).decode())),
        ("check", _check(manifest.check)),
        ("weights", _weights(manifest.requirements.weights)),
        ("left out", _left_out(manifest)),
        ("model", _model(manifest.calls[0].contract)),
        ("in C", _in_c(manifest)),
    ]
    yield _table(str(file), about)
    if manifest.targets:
        yield _targets(manifest)
    for call in manifest.calls:
        yield from _call(call)
    yield _pieces(manifest.pieces)
    yield _table("prepared weights, by unit", [*_prepared(manifest.units)])
    yield _table("could not be compiled, so run op by op", manifest.report.get("op_by_op", ()))
    yield _table("run as Python, not as native code", manifest.report.get("not_native", ()))
    yield _table("run on weights that are not packed", manifest.report.get("not_packed", ()))
    yield _table("linears, as measured", manifest.report.get("linears", ()))
    yield _table("fingerprint", [(name, part_text(value)) for name, value in parts.items()])
    yield _table("sources", [(name, source.content[:8]) for name, source in sources.items()])
    blobs = [(blob.name, memory(blob.size), blob.sha256[:8]) for blob in manifest.blobs]
    yield _table("blobs", blobs, "<><")


def _targets(manifest: Manifest) -> str:
    """A row for each target of a file; all else is about one of them."""
    shown = manifest.fingerprint.get("target")
    head = ("target", "units", "kernels", "size", "of which its own", "")
    rows = [
        (
            each.target,
            str(each.units),
            str(each.kernels),
            memory(each.bytes),
            memory(each.own_bytes),
            "shown below" if each.target == shown else "",
        )
        for each in manifest.targets
    ]
    return _table("targets, the best first", [head, *rows], "<>>>><")


def _call(call: StitchedCall) -> Iterator[str]:
    """Describe what a call takes; its name and method, if it has them, are in titles."""
    contract = call.contract
    of = f" of {call.name}" if call.name else ""
    of += f", a call of the model's {call.method}" if call.method else ""
    arguments = [row for p in contract.parameters for row in _parameter(p, contract)]
    yield _table(f"arguments{of}", [("argument", "dtype", "shape", "device", "notes"), *arguments])
    axes = [(axis.name, str(axis), ", ".join(map(str, axis.choices))) for axis in contract.axes]
    yield _table(f"axes{of}", [("axis", "sizes", "declared"), *axes] if axes else [])
    yield _table(f"variants{of}", [(stitched.variant.name,) for stitched in call.stitched])


def _prepared(units: Sequence[CompiledUnit]) -> Iterator[tuple[str, str]]:
    """Count, for each unit with preparations, how many it has."""
    for unit in units:
        if unit.preparations:
            packed = sum(preparation.packs for preparation in unit.preparations)
            yield unit.key[:16], f"{len(unit.preparations)}, of which {packed} packed"


def _table(title: str, rows: Sequence[Sequence[str]], align: str = "") -> str:
    """A title with rows below it, no wider than a page; the last column is wrapped."""
    cells = [[*(_cut(cell) for cell in row[:-1]), _line(row[-1])] for row in rows]
    taken = sum(2 + max(map(len, column)) for column in list(zip(*cells, strict=True))[:-1])
    lines: list[list[str]] = []
    for *first, last in cells:
        wide = max(_WIDTH - taken - 2, 20)
        parts = textwrap.wrap(last, wide, break_on_hyphens=False) or [""]
        lines.append([*first, parts[0]])
        lines += [[*("" for _ in first), part] for part in parts[1:]]
    shown = columns(lines, align or "<" * len(lines[0])) if lines else ["none"]
    return "\n  ".join([_line(title), *shown])


def _signature(key: str | None) -> str:
    return "none" if key is None else f"by {key}; not checked, see verify --trusted-key"


def _check(check: Mapping[str, Any]) -> str:
    if not check:
        return "none was made when it was saved"
    found = "equal bit by bit" if check["exact"] else f"at most {check['max_error']} apart"
    told = f"{check['tensors']} tensors were {found} when it was saved"
    unchecked = check.get("unchecked", [])  # older files do not say
    missing = "; ".join(f"{name} (it runs on no inputs that were tried: {why})"
                        for name, why in unchecked)  # fmt: skip
    return f"{told}; not checked: {missing}" if missing else told


def _weights(weights: Sequence[WeightSpec]) -> str:
    if not weights:
        return "none"
    kinds = Counter(weight.kind for weight in weights)
    counts = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in kinds.items())
    dtypes = ", ".join(dict.fromkeys(weight.dtype for weight in weights))
    size = sum(math.prod(weight.shape) * itemsize(weight.dtype) for weight in weights)
    written = sum(weight.mutated for weight in weights)
    more = f"; calls write to {written}" if written else ""
    return f"{counts}; {_bytes(size)} of {dtypes}{more}"


def _left_out(manifest: Manifest) -> str:
    """The weights that travel in the file; equal ones are there once."""
    if manifest.left_out is None:
        return "not known: load it with a model"
    if not manifest.left_out:
        return "nothing: checkpoints have all weights"
    kept = {one.tensor for one in manifest.left_out if one.tensor is not None}
    size = sum(_nbytes(manifest.tensors[name]) for name in kept)
    count = len(manifest.left_out)
    missing = sum(one.tensor is None for one in manifest.left_out)
    more = f"; {missing} of them without a value" if missing else ""
    noun = "tensor" if count == 1 else "tensors"
    return f"{count} {noun} that no checkpoint has, in this file: {_bytes(size)}{more}"


def _nbytes(layout: TensorLayout) -> int:
    return spanned(layout.shape, layout.stride) * itemsize(layout.dtype)


def _bytes(size: int) -> str:
    return f"{size} bytes ({memory(size)})" if size >= 1024 else f"{size} bytes"


def itemsize(dtype: str) -> int:
    """Bytes of an element of a dtype of torch; what is smaller than a byte takes one."""
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def _model(contract: Contract) -> str:
    autocast = [f"autocast to {dtype} on {device}" for device, dtype in contract.autocast]
    return ", ".join([_MODES[contract.training], *autocast])


def _in_c(manifest: Manifest) -> str:
    """Say whether a process without Python serves the program, and why not."""
    if manifest.native is None:
        return "not served: there is no native code"
    if (wiring := manifest.native.wiring) is None:
        return "not served: it was built by a version that did not save what this takes"
    return f"not served: {wiring.reason}" if wiring.reason else "served, with prepared weights"


def _parameter(parameter: Parameter, contract: Contract) -> Iterator[Sequence[str]]:
    notes = [_HOW[parameter.kind]] if parameter.kind in _HOW else []
    if parameter.has_default and parameter.tree == Const(parameter.default):
        notes.append("may be left out")
    star = "*" if parameter.kind == "var_positional" else ""
    return _argument(parameter.tree, star + parameter.name, contract, notes)


def _argument(
    tree: Tree, path: str, contract: Contract, notes: Sequence[str] = ()
) -> Iterator[Sequence[str]]:
    """Rows for an argument: itself, and what is in it."""
    match tree:
        case Slot("arg", slot):
            tensor = contract.tensors[slot]
            if tensor.dim_order != tuple(sorted(tensor.dim_order)):
                notes = [*notes, f"dimensions lie in the order {_tuple(tensor.dim_order)}"]
            if slot in contract.mutated_args:
                notes = [*notes, "is written to"]
            shape = _tuple(tensor.shape)
            yield tensor.path, tensor.dtype, shape, tensor.device, ", ".join(notes)
        case Slot():
            raise ValueError(f"{path} is no argument")
        case Const(value):
            yield path, "constant", _value(value), "", ", ".join(notes)
        case _:
            whole, parts = path.lstrip("*"), children(tree, path.lstrip("*"))
            yield path, tree.cls.__qualname__, f"of {len(parts)}", "", ", ".join(notes)
            for part in parts:
                # A file has keys as `values.encode` made them.
                where = f"{whole}[{_value(part.key)}]" if isinstance(tree, Map) else part.path
                yield from _argument(part.value, where, contract)


def _value(data: Any) -> str:
    """Write a value that `values.encode` encoded as a user would."""
    match data:
        case {"float": str(text)} | {"int": str(text)} | {"complex": str(text)}:
            return text
        case {"torch": str(text)}:
            return f"torch.{text}"
        case {"enum": [str(cls), name]}:
            return f"{cls.rpartition(':')[2]}.{name}"
        case {"tuple": [*items]}:
            return _tuple(map(_value, items))
        case {"list": [*items]}:
            return f"[{', '.join(map(_value, items))}]"
        case dict():
            ((kind, content),) = data.items()
            return f"{kind} {content}"
    return repr(data)


def _pieces(pieces: Sequence[PieceInfo]) -> str:
    """A row for each different piece."""
    by_digest: dict[tuple[str, str], list[PieceInfo]] = {}
    for piece in pieces:
        by_digest.setdefault((piece.kind, piece.digest), []).append(piece)
    different = sum(kind == "compiled" for kind, _ in by_digest)
    rows = [
        (same[0].name, f"{len(same)} x", kind, ", ".join(same[0].layers))
        for (kind, _), same in by_digest.items()
    ]
    return _table(f"pieces: {len(pieces)}, of which {different} had to be compiled", rows, "<><<")


def _tuple(items: Iterable[object]) -> str:
    parts = [str(item) for item in items]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _cut(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 13]}...{line[-10:]}"


def _line(text: str) -> str:
    return " ".join(text.split())
