"""The module as it is."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject
from benchmarks.peers.tensors import ready


def load(_subject: Subject, place: Place, module: Any) -> Loaded:
    """Call the module."""
    return ready(module, place)


EAGER = Peer(title="eager", packages=("torch",), load=load, takes_module=True)
