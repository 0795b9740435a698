"""hotstart with `Options(tune=True)`: how linears are computed was measured while building."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.peers.hotstart import compile_and_save, lacks_option, load
from benchmarks.peers.peer import Peer, Place
from benchmarks.peers.subjects import Subject


def build(subject: Subject, place: Place, module: Any) -> None:
    """Compile the module with measurements, and save the program."""
    compile_and_save(subject, place, module, tune=True)


HOTSTART_TUNED = Peer(
    title="hotstart, tuned",
    packages=("torch", "hotstart"),
    load=load,
    build=build,
    takes_module=True,
    missing=partial(lacks_option, "tune"),
)
