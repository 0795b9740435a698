"""hotstart with `Options(tune=True)`: how linears are computed was measured while building."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.peers.hotstart import compile_and_save, load
from benchmarks.peers.peer import Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Compile the module with measurements, and save the program."""
    compile_and_save(subject, place, module, tune=True)


def missing() -> str:
    """Say so where this hotstart measures nothing: it is the same as the other then."""
    import hotstart

    names = {field.name for field in dataclasses.fields(hotstart.Options)}
    return "" if "tune" in names else "this hotstart has no Options(tune=...)"


HOTSTART_TUNED = Peer(
    title="hotstart, tuned",
    packages=("torch", "hotstart"),
    load=load,
    build=build,
    takes_module=True,
    missing=missing,
)
