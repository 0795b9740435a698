"""What a build tells: report, log lines, events, trace, files."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart.events import Event

EAGER = Options(compiler="op_by_op")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def model(blocks: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), *(Block() for _ in range(blocks))).eval()


DIMS = {"input": {0: Dim("batch", max=64, ranges=[(1, 8), (9, 64)], sizes=[1])}}


def build(options: Options = EAGER, **kwargs: object) -> hotstart.Program:
    return hotstart.compile(
        model(), (torch.zeros(2, 8),), dynamic_shapes=DIMS, options=options, **kwargs
    )  # type: ignore[arg-type]


def test_every_piece_of_every_variant_is_in_the_report() -> None:
    report = build().report
    assert [variant.name for variant in report.variants] == ["batch=2..8", "batch=9..64", "batch=1"]
    assert len(report.units) == 3 * 5
    assert (report.pieces, report.unique, report.reused) == (5, 6, 9)
    for unit in report.units:
        assert (unit.action == "compiled") == (unit.reused_from is None)
        assert unit.seconds >= 0


def test_the_seconds_of_the_phases_add_up_to_the_wall_time() -> None:
    report = build().report
    assert sum(report.phases.values()) == pytest.approx(report.wall_s, rel=0.05)
    assert {"capture", "partition", "digest", "compile", "stitch", "bind"} <= set(report.phases)


def test_the_report_of_a_build_stays() -> None:
    program = build()
    before = program.report
    program(torch.zeros(2, 8))
    assert program.report == before


def test_each_variant_is_logged_on_one_line_also_when_all_is_reused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="hotstart"):
        build()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("compiled ")]
    assert len(lines) == 3
    for line in lines:
        assert line.endswith("s: 5 pieces, 2 units made, 3 reused")


def test_a_listener_sees_progress() -> None:
    events: list[Event] = []
    build(Options(compiler="op_by_op", on_event=events.append))
    finished = [event for event in events if event.kind == "unit_finished"]
    assert [event.done for event in finished] == list(range(1, 16))
    assert {event.total for event in finished} == {15}
    assert [int(event.detail["unmade"]) for event in finished] == [
        *(5, 4, 4, 4, 4),
        *(3, 2, 2, 2, 2),
        *(1, 0, 0, 0, 0),
    ]
    assert [e.name for e in events if e.kind == "variant_finished"] == [
        "batch=2..8", "batch=9..64", "batch=1",
    ]  # fmt: skip


class Branching(nn.Module):
    """Takes another graph, of more pieces, for long inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks if x.shape[0] > 8 else self.blocks[:2]:
            x = block(x)
        return x


class Halved(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x[::2].T)  # which asks in torch's own code for one row


def test_a_split_names_the_line_of_the_model_and_not_that_of_torch() -> None:
    rows = {"x": {0: Dim("rows", max=64)}}
    x = torch.zeros(8, 8)
    report = hotstart.compile(Halved().eval(), (x,), dynamic_shapes=rows, options=EAGER).report
    lines = [source for split in report.splits for _, source in split.conditions]
    asked = "in forward: return self.head(x[::2].T)"
    assert any(line.startswith(f"{Path(__file__).name}:") and asked in line for line in lines), (
        lines
    )


@pytest.mark.thorough
def test_totals_count_parts_and_calls_of_any_number_of_pieces() -> None:
    events: list[Event] = []
    rows = {"x": {0: Dim("rows", max=64)}}
    x = (torch.zeros(12, 8),)
    hotstart.compile(
        Branching().eval(),
        calls={
            "any": hotstart.Call(args=x, dynamic_shapes=rows),
            "one": hotstart.Call(args=(torch.zeros(1, 8),)),
        },
        options=Options(compiler="op_by_op", on_event=events.append),
    )
    finished = [event for event in events if event.kind == "unit_finished"]
    assert [event.done for event in finished] == list(range(1, len(finished) + 1))
    assert {event.total for event in finished} == {len(finished)}


def test_pieces_say_what_they_are() -> None:
    pieces = build().pieces
    assert [piece.name for piece in pieces] == [f"piece_{i}" for i in range(5)]
    assert [piece.layers for piece in pieces] == [("0",), ("1",), ("2",), ("3",), ("4",)]
    assert {piece.kind for piece in pieces} == {"compiled"}
    assert [piece.reused_from for piece in pieces] == [None, None, *["piece_1"] * 3]
    assert len({piece.digest for piece in pieces}) == 2


def test_debug_dir_gets_graph_pieces_and_code(tmp_path: Path) -> None:
    program = build(Options(compiler="op_by_op", debug_dir=tmp_path))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"graph_0.txt", "pieces_0.txt", "entry.py"} <= names
    stitched = next(tmp_path.rglob("stitched_batch_2_to_8.py"))
    assert stitched.read_text() == program.code["batch=2..8"]


def test_the_structured_trace_has_graph_compiles_and_code(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch writes it only where a handler is on the logger itself.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [caplog.handler])
    build()
    names = {
        record.metadata["artifact"]["name"]
        for record in caplog.records
        if "artifact" in getattr(record, "metadata", {})
    }
    assert "hotstart_graph_0" in names
    assert "hotstart_compile_piece_0_batch=2..8" in names
    assert "hotstart_stitched_batch=1" in names
    assert {"hotstart_entry", "hotstart_report"} <= names


# --- garbage collection ---------------------------------------------------------------------------


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(("given", "meanwhile"), [((700, 10, 10), 200_000), ((0, 10, 10), 0)])
def test_a_build_collects_garbage_rarely_and_leaves_the_thresholds_as_they_were(
    given: tuple[int, int, int], meanwhile: int
) -> None:
    seen: set[int] = set()

    def listen(event: Event) -> None:
        if event.name not in ("import", "describe"):  # before the build
            seen.add(gc.get_threshold()[0])
        if event.kind == "unit_finished":
            raise RuntimeError("stop")

    gc.set_threshold(*given)
    build()
    assert gc.get_threshold() == given
    with pytest.raises(RuntimeError, match="stop"):
        build(Options(compiler="op_by_op", on_event=listen))
    assert gc.get_threshold() == given
    assert seen == {meanwhile}
