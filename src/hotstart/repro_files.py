"""Write a script for each compiled piece that runs it in eager mode and compiled, alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

import torch
from torch import fx

from hotstart._torch.graphs.symbols import substitution
from hotstart.capture.captured import example_of
from hotstart.partition import Graph, Piece
from hotstart.records.artifact import CompiledUnit
from hotstart.specialize.trace import TracedCall
from hotstart.stitching.emit import NotExpressible
from hotstart.stitching.piece import piece_as_source
from hotstart.version import VERSION

SCRIPT = "repro.py"

_CONSTANTS = "constants.pt"

_TEXT = Template('''\
"""$name$layers: eager mode against torch.compile, on made-up values.

Run it as `python $script`; the exit status is 1 if results differ by more than rounding. It needs
torch only, and what registers the operators that did not come with it. Written by hotstart
$version, with torch $torch.
"""

import sys

import torch

TOLERANCE = 1e-4
"""Share of the largest number of an output that rounding may explain; 0.05 for short floats."""

$source

def weights():
    return [
$weights    ]


def arguments():
    return [
$arguments    ]


def made_up(shape, stride, dtype):
    """Small numbers around 0; integers are 0, which is a valid index."""
    count = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, stride))
    inexact = dtype.is_floating_point or dtype.is_complex
    flat = 0.1 * torch.randn(count) if inexact else torch.zeros(count)
    return flat.to(dtype).as_strided(shape, stride)


def difference(found, expected):
    """The largest difference, as a share of the largest number."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(found, expected) else float("inf")
    if expected.numel() == 0:
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    error = float((found.to(wide) - expected.to(wide)).abs().max())
    scale = float(expected.to(wide).abs().max())
    return error / scale if scale else error


@torch.no_grad()
def main():
    torch.manual_seed(0)
    call = bind(*weights())
    given = arguments()
    copies = [value.clone() if isinstance(value, torch.Tensor) else value for value in given]
    eager = call(list(given))
    compiled = torch.compile(lambda *args: call(list(args)), fullgraph=True, dynamic=$dynamic)
    status = 0
    for number, (found, expected) in enumerate(zip(compiled(*copies), eager)):
        error = difference(found, expected)
        allowed = 0.05 if expected.itemsize < 4 else TOLERANCE
        print(f"output {number}, {tuple(expected.shape)} {expected.dtype}: {error:.1e}")
        status |= not error <= allowed
    return status


if __name__ == "__main__":
    sys.exit(main())
''')


def write_repros(folder: Path, calls: Sequence[TracedCall]) -> None:
    """Write `piece_3/repro.py` for each compiled piece, where its operators can be said as source.

    Args:
        folder: where to make a folder for each piece.
        calls: the graphs, cut.
    """
    for part in {id(part.graph): part for call in calls for part in call.parts}.values():
        for piece in part.graph.plan.pieces:
            if piece.kind == "compiled":
                _write_repro(folder / piece.name, part.graph.plan.graph, piece, part.part.hints)


def _write_repro(folder: Path, graph: Graph, piece: Piece, hints: Mapping[str, int]) -> None:
    dynamic = tuple(axis for axis in piece.axes if axis in hints)
    try:
        unit = piece_as_source(graph, piece, dynamic, piece.name)
    except NotExpressible:
        return  # no source says it, so nothing else than Inductor runs it
    folder.mkdir(exist_ok=True)
    (folder / SCRIPT).write_text(_script(graph, piece, unit, dynamic, hints))
    if unit.constants:
        torch.save(dict(unit.constants), folder / _CONSTANTS)


def _script(
    graph: Graph,
    piece: Piece,
    unit: CompiledUnit,
    dynamic: Sequence[str],
    sizes: Mapping[str, int],
) -> str:
    weights = [node for node in piece.inputs if graph.is_weight(node)]
    others = [node for node in piece.inputs if node not in weights]
    known = substitution(sizes)
    own = [f"{sizes[axis]},  # {axis}" for axis in dynamic]
    load = ""
    if unit.constants:
        load = f'globals().update(torch.load(__file__.replace("{SCRIPT}", "{_CONSTANTS}")))\n'
    return _TEXT.substitute(
        name=piece.name,
        layers=f" ({', '.join(piece.layers)})" if piece.layers else "",
        script=SCRIPT,
        version=VERSION,
        torch=torch.__version__,
        source=load + unit.source.replace("import torch\n", "", 1).strip("\n") + "\n",
        weights=_indented(_tensors(graph, weights, known)),
        arguments=_indented([*own, *_tensors(graph, others, known)]),
        dynamic=bool(dynamic) or None,
    )


def _tensors(
    graph: Graph, nodes: Sequence[fx.Node], known: Mapping[object, object]
) -> Iterator[str]:
    for node in nodes:
        example = example_of(node)
        shape, stride = (
            tuple(int(graph.number_at(n, known)) for n in numbers)
            for numbers in (example.shape, example.stride())
        )
        yield f"made_up({shape}, {stride}, {example.dtype}),  # {node.name}"


def _indented(lines: Sequence[str] | Iterator[str]) -> str:
    return "".join(f"        {line}\n" for line in lines)
