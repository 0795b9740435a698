"""Documents to show: of a build of blocks that repeat, and of many pieces made of it."""

from __future__ import annotations

import functools
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options, Program
from hotstart.events import Span
from hotstart.records.report import UnitReport
from hotstart.reporting.document import Document

VARIANT = "batch=1..8"


class Block(nn.Module):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, rank), nn.Linear(rank, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))  # the line of a block


class Stack(nn.Module):
    """Three equal blocks, then a head: two different pieces."""

    def __init__(self, rank: int = 8, blocks: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(rank) for _ in range(blocks))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x).softmax(-1)


def built(rank: int = 8, blocks: int = 3, **options: Any) -> Program:
    torch.manual_seed(0)
    return hotstart.compile(
        Stack(rank, blocks).eval(),
        (torch.randn(3, 4),),
        dynamic_shapes={"x": {0: Dim("batch", min=1, max=8)}},
        options=Options(**{"compiler": "op_by_op", **options}),
    )


@functools.cache
def document() -> Document:
    """The document of a small build, with code that must not become HTML in it."""
    made = built().document()
    name = next(name for name in made.sources if name.startswith("stitched"))
    sources = {**made.sources, name: f"{made.sources[name]}# </pre><script>alert(1)</script>\n"}
    return replace(made, sources=sources, file="<b>small</b>.hot", size=2048)


def of_many_pieces(count: int) -> Document:
    """A document of so many pieces, of some forty kinds, with troubles and a timeline."""
    base = document()
    unit, *_ = base.artifact["units"]
    first, *_ = base.artifact["pieces"]
    details, *_ = base.details.pieces
    pieces, reports, units, spans, described = [], [], [], [], []
    made: dict[int, str] = {}
    for number in range(count):
        kind = number % 7 if number % 12 else 10 + number // 12 % 35
        digest, name = f"{kind:064x}", f"piece_{number}"
        origin = made.get(kind)
        here = {"name": name, "digest": digest, "layers": [f"blocks.{number}"], "reused_from": None}
        pieces.append({**first, **here})
        seconds = 0.0 if origin else 0.01 * (kind + 1)
        action: Any = "reused" if origin else "compiled"
        reports.append(UnitReport(name, VARIANT, action, seconds, origin))
        if origin is None:
            made[kind] = f"{name} ({VARIANT})"
            units.append({**unit, "key": digest})
            lane = "this process" if len(made) % 2 else "worker 1"
            start = spans[-1].start + spans[-1].seconds if spans else 0.5
            spans.append(Span(lane, name, start, seconds))
            described.append(replace(details, digest=digest))
    wall = spans[-1].start + spans[-1].seconds + 0.5
    spans.insert(0, Span("phases", "compile", 0.2, wall - 0.2))
    report = replace(
        base.report,
        pieces=count,
        unique=len(units),
        reused=count - len(units),
        units=tuple(reports),
        op_by_op=(("piece_5", "its strides are not known"),),
        wall_s=wall,
        phases={"capture": 0.2, "compile": wall - 0.2},
        spans=tuple(spans),
    )
    artifact = {**base.artifact, "pieces": pieces, "units": units}
    kept = replace(base.details, pieces=tuple(described))
    return replace(base, report=report, artifact=artifact, details=kept, copied={"x": 3})
