"""`torch.compile` with freezing: weights are constants, which Inductor packs for oneDNN.

Inductor keeps no graph with frozen weights in its caches, so a load compiles again; only the work
of the C++ compiler is cached.
"""

from __future__ import annotations

from typing import Any

from benchmarks.peers import torch_compile
from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject


def load(subject: Subject, place: Place, module: Any) -> Loaded:
    """Wrap the module; calls compile it with frozen weights."""
    _freeze()
    return torch_compile.load(subject, place, module)


def build(subject: Subject, place: Place, module: Any) -> None:
    """Fill what caches there are with calls of every size that is measured."""
    _freeze()
    torch_compile.build(subject, place, module)


def _freeze() -> None:
    import torch._inductor.config

    torch._inductor.config.freezing = True


TORCH_COMPILE_FREEZING = Peer(
    title="torch.compile, freezing",
    packages=("torch",),
    load=load,
    build=build,
    takes_module=True,
    keeps_caches=True,
)
