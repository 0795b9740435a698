"""What comparing the units of programs with their operators has shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

import hotstart


class Proof(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of the units of a program, or of many.

    Attributes:
        units: how many were compiled.
        proven: how many of them do what their operators do.
        sizes: at how many sizes they were compared, all told.
        without: a line for each piece that was compiled without a pass.
        op_by_op: a line for each piece that runs op by op.
        unproven: a line for each piece that was not compared at some sizes.
    """

    units: int = 0
    proven: int = 0
    sizes: int = 0
    without: tuple[str, ...] = ()
    op_by_op: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


_FOUND = {
    "without": "compiled without a pass",
    "op_by_op": "run op by op",
    "unproven": "not compared at some sizes",
}


def of(program: hotstart.Program, name: str) -> Proof:
    """What the build of a program has shown; lines begin with a name."""
    report, units = program.report, program.artifact.units
    return Proof(
        units=len(units),
        proven=report.proven,
        sizes=sum(len(unit.proof.sizes) for unit in units),
        without=_lines(name, report.without),
        op_by_op=_lines(name, report.op_by_op),
        unproven=_lines(name, report.unproven),
    )


def _lines(name: str, found: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(": ".join((name, *parts)) for parts in found)


def together(proofs: Iterable[Proof]) -> Proof:
    """What several have shown."""
    total = Proof()
    for proof in proofs:
        both = (getattr(total, field) + getattr(proof, field) for field in Proof.__struct_fields__)
        total = Proof(*both)
    return total


def text(proof: Proof) -> str:
    """A paragraph, and a line for everything that was found, in Markdown."""
    counts = ", ".join(f"{len(getattr(proof, key))} {what}" for key, what in _FOUND.items())
    said = f"{proof.units} units, of which {proof.proven} were compared, at {proof.sizes} sizes."
    return "\n".join([said, f"Pieces: {counts}.", *_listed(proof)])


def _listed(proof: Proof) -> Iterator[str]:
    lines = [f"- {line} ({what})" for key, what in _FOUND.items() for line in getattr(proof, key)]
    if lines:
        yield ""
        yield from lines
