"""AOTInductor with freezing: a package with the weights in it, packed for oneDNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject
from benchmarks.peers.tensors import exported, ready, set_up


def build(subject: Subject, place: Place, module: Any) -> None:
    """Export the module and compile it to a package."""
    import torch

    set_up(place)
    torch._inductor.aoti_compile_and_package(
        exported(subject, module),
        package_path=str(_package(place)),
        inductor_configs={"freezing": True},
    )


def load(_subject: Subject, place: Place, _module: Any) -> Loaded:
    """Load the package."""
    import torch

    return ready(torch._inductor.aoti_load_package(str(_package(place))), place)


def _package(place: Place) -> Path:
    return place.folder / "model.pt2"


AOT_INDUCTOR = Peer(
    title="AOTInductor, freezing",
    packages=("torch",),
    load=load,
    build=build,
    exports=True,
)
