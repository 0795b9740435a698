"""Say whether prepared weights fit a program and this process. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from hotstart.artifact import fingerprint
from hotstart.artifact.weights_file import WRITE_AGAIN, Table
from hotstart.errors import IncompatibleArtifact
from hotstart.records.artifact import Artifact, CompiledUnit, Requirements


def weights_fingerprint(packed: bool) -> dict[str, Any]:
    """Name the parts of this process that decide where prepared weights fit.

    Args:
        packed: whether some are packed for oneDNN.
    """
    parts = fingerprint.host()
    found = {name: parts[name] for name in ("torch", "torch_build", "platform")}
    return {**found, **(fingerprint.packing(parts) if packed else {})}


def unit_digests(units: Iterable[CompiledUnit]) -> tuple[tuple[str, str], ...]:
    """List units of a program, each with a digest of what it has prepared."""
    found: list[tuple[str, str]] = []
    for unit in units:
        prepared = [(p.code.text, p.weights, p.packs) for p in unit.preparations]
        found.append((unit.key, _digest([unit.kept, prepared])))
    return tuple(found)


def table_digest(requirements: Requirements) -> str:
    """Digest a program's table of weights."""
    return _digest(requirements.weights)


def _digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def require_fit(name: str, table: Table, artifact: Artifact) -> None:
    """Compare what weights were prepared for with a program and this process.

    Raises:
        IncompatibleArtifact: with every part that differs.
    """
    here = weights_fingerprint("instructions" in table.fingerprint)
    differences = _misfits(table.fingerprint, here)
    units, own = dict(table.units), dict(unit_digests(artifact.units))
    if units != own:
        theirs = [key for key, digest in units.items() if own.get(key) != digest]
        ours = [key for key, digest in own.items() if units.get(key) != digest]
        target = artifact.fingerprint.get("target", "native")
        of = "" if target == "native" else f", for {target}"
        differences.append(("units", _short(theirs), _short(ours) + of))
    if table.specs != (specs := table_digest(artifact.requirements)):
        differences.append(("table of weights", table.specs[:16], specs[:16]))
    if differences:
        raise IncompatibleArtifact(name, differences, WRITE_AGAIN)


def _misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List the parts that differ, each with what weights were prepared for and what is here."""
    problems: list[tuple[str, str, str]] = []
    for part, wanted in expected.items():
        here = found.get(part)
        if wanted == here:
            continue
        if isinstance(wanted, list) and isinstance(here, list):
            missing, more = set(wanted).difference(here), set(here).difference(wanted)
            wanted, here = _cpu(missing, more), _cpu(more, missing)
        problems.append((part, str(wanted) or "nothing", str(here) or "nothing"))
    return problems


def _cpu(has: Iterable[str], lacks: Iterable[str]) -> str:
    parts = [("with", has), ("without", lacks)]
    listed = [f"{word} {', '.join(sorted(flags))}" for word, flags in parts if flags]
    return f"a CPU {' and '.join(listed)}"


def _short(keys: Sequence[str]) -> str:
    return ", ".join(key[:12] for key in keys) or "none that differ"
