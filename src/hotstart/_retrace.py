"""`hotstart.compile(verify="retrace")`: whether what was found is what a build would give now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from hotstart._units import Kept
from hotstart.errors import StoreError
from hotstart.ir import Artifact, CompiledCall, CompiledUnit, Stitched
from hotstart.keys.explain import difference, listed
from hotstart.keys.records import Key, Seen
from hotstart.objects import Describer, digest
from hotstart.runtime.program import Program
from hotstart.runtime.structure import contents_text
from hotstart.shapes import labelled

Build = Callable[[Kept], tuple[Program, tuple[Seen, ...]]]


def require_same(found: Program, build: Build, key: Key) -> None:
    """Capture, cut and join again, and compare everything but what compilers write.

    Only pieces that the found program does not have are compiled.

    Raises:
        StoreError: the program would be another one now.
    """
    made, _ = build(_Units(found.artifact.units))
    changes = difference(dict(_parts(found.artifact)), dict(_parts(made.artifact)))
    if changes:
        told = listed("what is stored beside what would be compiled now", changes)
        raise StoreError(
            f"expected the program of key {key.digest} to be what a build gives now, found "
            f"another.\n{told}\n"
            "Forward depends on something that the key does not know: give that as extra_key. "
            f"`hotstart cache rm {key.digest}` removes the program."
        )


class _Units:
    """The units of a program, for a build that is to make it again."""

    def __init__(self, units: Mapping[str, CompiledUnit]) -> None:
        self._units = units

    def get(self, key: str) -> CompiledUnit | None:
        """The unit of a job, if the program has it."""
        return self._units.get(key)

    def put(self, unit: CompiledUnit) -> None:
        """What the program does not have is none of it."""


def _parts(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """All of a program that a build decides, as texts by name."""
    needs = artifact.requirements
    for info in artifact.pieces:
        yield (
            f"{info.name} of {', '.join(info.layers) or 'the model'}",
            f"{info.kind} {info.digest}",
        )
    for weight in needs.weights:
        yield f"weight {weight.name}", repr(weight)
    yield "unread weights", repr(needs.unread)
    yield "modes", repr(needs.modes)
    for path, number in needs.modules:
        yield f"module {path}", repr(needs.kinds[number])
    for slot, tensor in artifact.captured.items():
        yield f"captured tensor {slot}", contents_text(tensor)
    for call in artifact.calls:
        yield from _call(call)


def _call(call: CompiledCall) -> Iterator[tuple[str, str]]:
    yield f"contract {call.name}".rstrip(), repr((call.method, call.contract))
    for stitched in call.stitched:
        yield f"code of {labelled(call.name, stitched.variant)}", _code(stitched)


def _code(stitched: Stitched) -> str:
    described = map(Describer().member_text, stitched.constants)
    where = (stitched.units, stitched.weights, stitched.owners)
    return digest([stitched.source, repr(where), *described])
