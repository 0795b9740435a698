"""Contents of an artifact as tables, to be printed or shown on a page. Imports no torch."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from hotstart.artifact.compatibility import part_text
from hotstart.artifact.manifest import Manifest, TensorLayout
from hotstart.guards.sources import Source
from hotstart.records.artifact import CompiledUnit, StitchedCall, WeightSpec
from hotstart.records.contract import Contract
from hotstart.records.report import PieceInfo
from hotstart.records.shapes import spanned
from hotstart.records.table import memory
from hotstart.reporting.arguments import argument_rows

_MODES = {None: "a function", False: "a module in eval mode", True: "a module in training mode"}


@dataclass(frozen=True)
class Table:
    """Rows with a title.

    Attributes:
        title: says what they are of.
        rows: cells, as many in each.
        head: names of the columns; empty where the first cell of each row is its name.
        align: `<` or `>` for each column; empty: all to the left.
    """

    title: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    align: str = ""


def about(manifest: Manifest) -> list[tuple[str, str]]:
    """Facts about a program as a whole, by name."""
    return [
        ("check", check_text(manifest.check)),
        ("weights", _weights(manifest.requirements.weights)),
        ("left out", _left_out(manifest)),
        ("model", _model(manifest.calls[0].contract)),
        ("in C", _in_c(manifest)),
    ]


def sections(manifest: Manifest) -> Iterator[Table]:
    """Tables of all else in an artifact."""
    if manifest.targets:
        yield _targets(manifest)
    for call in manifest.calls:
        yield from call_tables(call)
    yield _pieces(manifest.pieces)
    yield Table("prepared weights, by unit", [*_prepared(manifest.units)])
    kept = manifest.report
    yield Table("could not be compiled, so run op by op", kept.get("op_by_op", ()))
    yield Table("run as Python, not as native code", kept.get("not_native", ()))
    yield Table("run on weights that are not packed", kept.get("not_packed", ()))
    yield Table("linears, as measured", kept.get("linears", ()))
    yield from origin_tables(manifest)


def origin_tables(manifest: Manifest) -> Iterator[Table]:
    """Tables of the fingerprint, the traced sources, and the blobs of the file."""
    yield Table("fingerprint", list(fingerprint_parts(manifest.fingerprint).items()))
    sources = msgspec.convert(manifest.fingerprint.get("sources", {}), dict[str, Source])
    yield Table("sources", [(name, source.content[:8]) for name, source in sources.items()])
    blobs = [(blob.name, memory(blob.size), blob.sha256[:8]) for blob in manifest.blobs]
    yield Table("blobs", blobs, align="<><")


def fingerprint_parts(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    """The parts of a fingerprint but the sources, as text."""
    return {name: part_text(v) for name, v in fingerprint.items() if name != "sources"}


def weights_table(manifest: Manifest) -> Table:
    """The tensors that a program reads of the model."""
    rows = []
    for spec in manifest.requirements.weights:
        shape = f"({', '.join(map(str, spec.shape))}{',' if len(spec.shape) == 1 else ''})"
        size = memory(math.prod(spec.shape) * itemsize(spec.dtype))
        notes = [f"the same as {', '.join(spec.ties)}"] if spec.ties else []
        notes += ["calls write to it"] if spec.mutated else []
        rows.append((spec.name, spec.kind, spec.dtype, shape, size, "; ".join(notes)))
    head = ("name", "kind", "dtype", "shape", "size", "notes")
    return Table("parameters and buffers", rows, head, "<<<<><")


def _targets(manifest: Manifest) -> Table:
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
    return Table("targets, the best first", rows, head, "<>>>><")


def call_tables(call: StitchedCall) -> Iterator[Table]:
    """Describe what a call takes; its name and method, if it has them, are in titles."""
    contract = call.contract
    of = f" of {call.name}" if call.name else ""
    of += f", a call of the model's {call.method}" if call.method else ""
    head = ("argument", "dtype", "shape or value", "device", "notes")
    yield Table(f"arguments{of}", argument_rows(contract), head)
    axes = [(axis.name, str(axis), ", ".join(map(str, axis.choices))) for axis in contract.axes]
    yield Table(f"axes{of}", axes, ("axis", "sizes", "declared") if axes else ())
    yield Table(f"variants{of}", [(stitched.variant.name,) for stitched in call.stitched])


def _prepared(units: Sequence[CompiledUnit]) -> Iterator[tuple[str, str]]:
    """Count, for each unit with preparations, how many it has."""
    for unit in units:
        if unit.preparations:
            packed = sum(preparation.packs for preparation in unit.preparations)
            yield unit.key[:16], f"{len(unit.preparations)}, of which {packed} packed"


def check_text(check: Mapping[str, Any]) -> str:
    """Describe the comparison at save."""
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
    return f"{counts}; {byte_count(size)} of {dtypes}{more}"


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
    return f"{count} {noun} that no checkpoint has, in this file: {byte_count(size)}{more}"


def _nbytes(layout: TensorLayout) -> int:
    return spanned(layout.shape, layout.stride) * itemsize(layout.dtype)


def byte_count(size: int) -> str:
    """A number of bytes, with a shorter form beside it."""
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


def _pieces(pieces: Sequence[PieceInfo]) -> Table:
    """A row for each different piece."""
    by_digest: dict[tuple[str, str], list[PieceInfo]] = {}
    for piece in pieces:
        by_digest.setdefault((piece.kind, piece.digest), []).append(piece)
    compiled = [same for (kind, _), same in by_digest.items() if kind == "compiled"]
    called = len(pieces) - sum(map(len, compiled))
    words = {"compiled": "compiled", "inlined": "called as operators"}
    rows = [
        (same[0].name, f"{len(same)} x", words[kind], ", ".join(same[0].layers))
        for (kind, _), same in by_digest.items()
    ]
    kinds = f"{len(compiled)} kind{'' if len(compiled) == 1 else 's'}"
    title = f"pieces: {len(pieces) - called}, of {kinds}"
    title += f"; {called} more called as operators" if called else ""
    return Table(title, rows, align="<><<")
