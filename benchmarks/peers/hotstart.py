"""hotstart: compiled for every declared size, saved, and loaded with the module's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.peers.peer import Loaded, Peer, Place
from benchmarks.peers.subjects import Subject
from benchmarks.peers.tensors import example, ready, set_up


def build(subject: Subject, place: Place, module: Any) -> None:
    """Compile the module with default options, and save the program."""
    compile_and_save(subject, place, module)


def compile_and_save(subject: Subject, place: Place, module: Any, **options: Any) -> None:
    """Compile the module with some options, and save the program."""
    import hotstart

    set_up(place)
    dims = {axis: hotstart.Dim(axis.name, min=axis.min, max=axis.max) for axis in subject.axes}
    program = hotstart.compile(
        module,
        example(subject),
        dynamic_shapes={
            each.name: {at: dims[axis] for at, axis in each.axes.items()} for each in subject.inputs
        },
        options=hotstart.Options(**options),
    )
    program.save(_file(place))


def load(_subject: Subject, place: Place, module: Any) -> Loaded:
    """Load the program."""
    import hotstart

    return ready(hotstart.load(_file(place), module), place)


def lacks_option(name: str) -> str:
    """Say so where this hotstart has no such option: a peer that sets it is the same as this."""
    import hotstart

    names = {field.name for field in dataclasses.fields(hotstart.Options)}
    return "" if name in names else f"this hotstart has no Options({name}=...)"


def _file(place: Place) -> Path:
    return place.folder / "model.hot"


HOTSTART = Peer(
    title="hotstart",
    packages=("torch", "hotstart"),
    load=load,
    build=build,
    takes_module=True,
)
