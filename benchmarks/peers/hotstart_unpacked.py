"""hotstart with `Options(pack_weights=False)`: weights stay as the module has them."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers.hotstart import compile_and_save, lacks_option, load
from benchmarks.peers.peer import Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Compile the module without packing, and save the program."""
    compile_and_save(subject, place, module, pack_weights=False)


HOTSTART_UNPACKED = Peer(
    title="hotstart, weights unpacked",
    packages=("torch", "hotstart"),
    load=load,
    build=build,
    takes_module=True,
    missing=partial(lacks_option, "pack_weights"),
)
