"""`hotstart inspect`, `verify`, `load-check` and `keygen`. Nothing here imports torch."""

from __future__ import annotations

import base64
import contextlib
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from hotstart.artifact import container, preflight
from hotstart.cli.build import see_working_folder
from hotstart.cli.output import say, say_json
from hotstart.errors import CorruptArtifact, UntrustedArtifact
from hotstart.guards.sources import Source
from hotstart.records.shapes import Dim, Variant
from hotstart.records.table import columns, memory

if TYPE_CHECKING:
    from hotstart.cli.requests import InspectRequest, KeygenRequest, LoadCheckRequest, VerifyRequest

_WIDTH = 100
_LONGEST = 60
"""Characters of a cell that is not its row's last; those are wrapped."""

# What comes of a manifest that is whole, and was written by somebody else.
_MALFORMED = (
    msgspec.MsgspecError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError,
)  # fmt: skip

_HOW = {"positional_only": "by position only", "keyword": "by keyword only"}
_MODES = {None: "a function", False: "a module in eval mode", True: "a module in training mode"}


def inspect(request: InspectRequest) -> None:
    """Print what an artifact says of itself; blobs are not read.

    Raises:
        ArtifactError: as `hotstart.inspect`.
    """
    manifest = preflight.inspect(request.file)
    if request.json:
        say_json(manifest)
        return
    try:
        text = "\n\n".join(_sections(request.file, msgspec.convert(manifest, _Manifest)))
    except _MALFORMED as error:
        expected = "what hotstart writes"
        raise CorruptArtifact(request.file, "manifest", expected, f"this: {error}") from error
    say(text)


def verify(request: VerifyRequest) -> None:
    """Check every byte, and the signature if there are keys.

    Raises:
        ArtifactError: as `preflight.verify`.
    """
    found = preflight.verify(request.file, request.trusted_keys)
    trusted = request.trusted_keys is not None
    if request.json:
        say_json({"ok": True, "file": str(request.file), **found, "trusted": trusted})
        return
    say(f"{request.file}: all {found['bytes']} bytes are as they were written")
    key = found["signed_by"]
    say(f"signature: {f'by {key}, which is trusted' if trusted else _signature(key)}")


def load_check(request: LoadCheckRequest) -> None:
    """Say whether an artifact fits this process and its working folder.

    Raises:
        ArtifactError: as `preflight.load_check`.
    """
    see_working_folder()
    preflight.load_check(request.file, request.compare_source)
    if request.json:
        say_json({"ok": True, "file": str(request.file)})
    else:
        say(f"{request.file} fits here")


def keygen(request: KeygenRequest) -> None:
    """Write a key pair; the public key goes to stdout.

    Raises:
        ArtifactError: as `signing.generate`.
    """
    from hotstart.artifact.signing import generate

    public, text = generate(request.file)
    say(f"wrote {request.file}, to be kept secret, and {public}, to be given away", sys.stderr)
    say(text)


# --- what of a manifest a user reads --------------------------------------------------------------


class _Tensor(msgspec.Struct):
    path: str
    dtype: str
    device: str
    shape: list[int | str]
    dim_order: list[int]


class _Parameter(msgspec.Struct):
    name: str
    kind: str
    tree: dict[str, Any]
    has_default: bool
    default: Any


class _Weight(msgspec.Struct):
    kind: str
    dtype: str
    shape: list[int]
    mutated: bool


class _Contract(msgspec.Struct):
    parameters: list[_Parameter]
    tensors: list[_Tensor]
    axes: list[Dim]
    training: bool | None
    autocast: list[tuple[str, str]]
    mutated_args: list[int]


class _Requirements(msgspec.Struct):
    weights: list[_Weight]


class _Piece(msgspec.Struct):
    name: str
    digest: str
    kind: str
    layers: list[str]


class _Stitched(msgspec.Struct):
    variant: Variant


class _Call(msgspec.Struct):
    name: str
    method: str
    contract: _Contract
    stitched: list[_Stitched]


class _Report(msgspec.Struct):
    op_by_op: list[tuple[str, str]] = []


class _Manifest(msgspec.Struct):
    fingerprint: dict[str, Any]
    check: dict[str, Any]
    report: _Report
    pieces: list[_Piece]
    requirements: _Requirements
    calls: list[_Call]
    blobs: list[container.Blob]


# --- as text --------------------------------------------------------------------------------------


def _sections(file: Path, manifest: _Manifest) -> Iterator[str]:
    parts = dict(manifest.fingerprint)
    sources = msgspec.convert(parts.pop("sources", {}), dict[str, Source])
    size = file.stat().st_size
    about = [
        ("format", str(container.FORMAT)),
        ("size", _bytes(size)),
        ("signature", _signature(_named_key(file))),
        ("check", _check(manifest.check)),
        ("weights", _weights(manifest.requirements.weights)),
        ("model", _model(manifest.calls[0].contract)),
    ]
    yield _table(str(file), about)
    for call in manifest.calls:
        yield from _call(call)
    yield _pieces(manifest.pieces)
    yield _table("could not be compiled, so run op by op", manifest.report.op_by_op)
    yield _table("fingerprint", [(name, _part(value)) for name, value in parts.items()])
    yield _table("sources", [(name, source.content[:8]) for name, source in sources.items()])
    blobs = [(blob.name, memory(blob.size), blob.sha256[:8]) for blob in manifest.blobs]
    yield _table("blobs", blobs, "<><")


def _call(call: _Call) -> Iterator[str]:
    """What a call takes; in titles, its name and the method that it is of, if it has them."""
    contract = call.contract
    of = f" of {call.name}" if call.name else ""
    of += f", a call of the model's {call.method}" if call.method else ""
    arguments = [row for p in contract.parameters for row in _parameter(p, contract)]
    yield _table(f"arguments{of}", [("argument", "dtype", "shape", "device", "notes"), *arguments])
    axes = [(axis.name, str(axis), ", ".join(map(str, axis.choices))) for axis in contract.axes]
    yield _table(f"axes{of}", [("axis", "sizes", "declared"), *axes] if axes else [])
    yield _table(f"variants{of}", [(stitched.variant.name,) for stitched in call.stitched])


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


def _named_key(file: Path) -> str | None:
    """The public key in a file's header, in base64; nothing else of the file is read."""
    keys: list[bytes] = []

    def look(_: bytes, key: bytes | None, signature: bytes | None) -> str:
        keys.extend([] if key is None else [key])
        return "one that nobody asked for"

    with contextlib.suppress(UntrustedArtifact):
        container.read(file, look)
    return base64.b64encode(keys[0]).decode() if keys else None


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


def _weights(weights: Sequence[_Weight]) -> str:
    if not weights:
        return "none"
    kinds = Counter(weight.kind for weight in weights)
    counts = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in kinds.items())
    dtypes = ", ".join(dict.fromkeys(weight.dtype for weight in weights))
    size = sum(math.prod(weight.shape) * itemsize(weight.dtype) for weight in weights)
    written = sum(weight.mutated for weight in weights)
    more = f"; calls write to {written}" if written else ""
    return f"{counts}; {_bytes(size)} of {dtypes}{more}"


def _bytes(size: int) -> str:
    return f"{size} bytes ({memory(size)})" if size >= 1024 else f"{size} bytes"


def itemsize(dtype: str) -> int:
    """Bytes of an element of a dtype of torch; what is smaller than a byte takes one."""
    bits = re.search(r"\d+", dtype)
    return max(int(bits[0]) // 8, 1) if bits else 1


def _model(contract: _Contract) -> str:
    autocast = [f"autocast to {dtype} on {device}" for device, dtype in contract.autocast]
    return ", ".join([_MODES[contract.training], *autocast])


def _parameter(parameter: _Parameter, contract: _Contract) -> Iterator[Sequence[str]]:
    notes = [_HOW[parameter.kind]] if parameter.kind in _HOW else []
    if parameter.has_default and parameter.tree == {"type": "const", "value": parameter.default}:
        notes.append("may be left out")
    star = "*" if parameter.kind == "var_positional" else ""
    return _argument(parameter.tree, star + parameter.name, contract, notes)


def _argument(
    tree: Any, path: str, contract: _Contract, notes: Sequence[str] = ()
) -> Iterator[Sequence[str]]:
    """Rows for an argument: itself, and what is in it."""
    match tree:
        case {"type": "slot", "kind": "arg", "index": int(slot)}:
            tensor = contract.tensors[slot]
            if tensor.dim_order != sorted(tensor.dim_order):
                notes = [*notes, f"dimensions lie in the order {_tuple(tensor.dim_order)}"]
            if slot in contract.mutated_args:
                notes = [*notes, "is written to"]
            shape = _tuple(tensor.shape)
            yield tensor.path, tensor.dtype, shape, tensor.device, ", ".join(notes)
        case {"type": "const", "value": value}:
            yield path, "constant", _value(value), "", ", ".join(notes)
        case {"cls": str(cls)}:
            parts = list(_children(tree, path.lstrip("*")))
            name = cls.rpartition(":")[2]
            yield path, name, f"of {len(parts)}", "", ", ".join(notes)
            for part, where in parts:
                yield from _argument(part, where, contract)
        case _:
            raise ValueError(f"{path} is no argument")


def _children(tree: dict[str, Any], path: str) -> Iterator[tuple[Any, str]]:
    for number, item in enumerate(tree.get("items", ())):
        yield item, f"{path}[{number}]"
    for key, item in tree.get("entries", ()):
        yield item, f"{path}[{_value(key)}]"
    for name, item in tree.get("fields", ()):
        yield item, f"{path}.{name}"


def _value(data: Any) -> str:
    """What `values.encode` made of a value, as a user would write it."""
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


def _pieces(pieces: Sequence[_Piece]) -> str:
    """A row for each different piece."""
    by_digest: dict[tuple[str, str], list[_Piece]] = {}
    for piece in pieces:
        by_digest.setdefault((piece.kind, piece.digest), []).append(piece)
    different = sum(kind == "compiled" for kind, _ in by_digest)
    rows = [
        (same[0].name, f"{len(same)} x", kind, ", ".join(same[0].layers))
        for (kind, _), same in by_digest.items()
    ]
    return _table(f"pieces: {len(pieces)}, of which {different} had to be compiled", rows, "<><<")


def _part(value: Any) -> str:
    match value:
        case None | [] | {} if not value:
            return "none"
        case list():
            return ", ".join(map(_part, value))
        case dict():
            return ", ".join(f"{key} {_part(entry)}" for key, entry in value.items())
    return str(value)


def _tuple(items: Iterable[object]) -> str:
    parts = [str(item) for item in items]
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def _cut(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 13]}...{line[-10:]}"


def _line(text: str) -> str:
    return " ".join(text.split())
