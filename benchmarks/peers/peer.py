"""The record that describes a peer, and what its functions are given and return."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.subjects import Subject

Arrays = Mapping[str, Any]
"""The inputs of a call: NumPy arrays by name, in the order of forward's parameters."""


def _nothing_missing() -> str:
    return ""


@dataclass(frozen=True)
class Place:
    """Where a peer works.

    Attributes:
        folder: for the files it builds; empty before.
        threads: how many to compute with.
    """

    folder: Path
    threads: int


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to be called.

    Attributes:
        prepare: makes a call without arguments for some inputs; no part of what is timed.
        array: the result of such a call as a NumPy array.
    """

    prepare: Callable[[Arrays], Callable[[], Any]]
    array: Callable[[Any], Any]


@dataclass(frozen=True)
class Peer:
    """One way to run a model.

    Attributes:
        title: as tables have it.
        packages: imported before a load; that is timed by itself.
        load: makes the model ready from the files of the build. Gets the module, or None.
        build: leaves files in the place's folder. None: there are none.
        build_packages: needed for a build besides. A peer that lacks any package is skipped.
        takes_module: whether a load needs the PyTorch module with its weights.
        exports: whether a build goes through `torch.export`.
        keeps_caches: whether a load reads Inductor's disk caches in place of files.
        missing: says what else the peer lacks here, or nothing.
    """

    title: str
    packages: tuple[str, ...]
    load: Callable[[Subject, Place, Any], Loaded]
    build: Callable[[Subject, Place, Any], None] | None = None
    build_packages: tuple[str, ...] = ()
    takes_module: bool = False
    exports: bool = False
    keeps_caches: bool = False
    missing: Callable[[], str] = _nothing_missing

    def lacks(self) -> str:
        """What is missing to run this peer here; empty if nothing is."""
        needed = (*self.packages, *self.build_packages)
        absent = [name for name in needed if importlib.util.find_spec(name) is None]
        return f"no package {', '.join(absent)}" if absent else self.missing()
