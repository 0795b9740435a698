"""hotstart with `Options(pack_weights=False)`: weights stay as the module has them."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.peers.hotstart import compile_and_save, load
from benchmarks.peers.peer import Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Compile the module without packing, and save the program."""
    compile_and_save(subject, place, module, pack_weights=False)


def missing() -> str:
    """Say so where this hotstart packs no weights at all: it is the same as the other then."""
    import hotstart

    names = {field.name for field in dataclasses.fields(hotstart.Options)}
    return "" if "pack_weights" in names else "this hotstart has no Options(pack_weights=...)"


HOTSTART_UNPACKED = Peer(
    title="hotstart, weights unpacked",
    packages=("torch", "hotstart"),
    load=load,
    build=build,
    takes_module=True,
    missing=missing,
)
