"""`torch.compile` with dynamic shapes; a load finds full disk caches."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject
from benchmarks.peers.tensors import ready


def load(_subject: Subject, place: Place, module: Any) -> Loaded:
    """Wrap the module; calls compile it, from caches where they are full."""
    import torch

    return ready(torch.compile(module, dynamic=True), place)


def build(subject: Subject, place: Place, module: Any) -> None:
    """Fill the caches with calls of every size that is measured."""
    loaded = load(subject, place, module)
    for sizes in subject.sizes:
        loaded.prepare(subject.arrays(sizes))()


TORCH_COMPILE = Peer(
    title="torch.compile",
    packages=("torch",),
    load=load,
    build=build,
    takes_module=True,
    keeps_caches=True,
)
