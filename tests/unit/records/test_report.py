from __future__ import annotations

import json

import msgspec
import pytest
from expecttest import assert_expected_inline
from hypothesis import given
from hypothesis import strategies as st

from hotstart.records.report import Report, UnitReport, VariantReport, WorkerReport, render
from hotstart.records.table import columns, memory

LONG = "seq=2..64"
ONE = "seq=1"


def compiled(piece: str, variant: str = LONG, seconds: float = 1.0) -> UnitReport:
    return UnitReport(piece, variant, "compiled", seconds)


def reused(piece: str, origin: str, variant: str = LONG) -> UnitReport:
    return UnitReport(piece, variant, "reused", 0.001, f"{origin} ({variant})")


def deep(layers: int) -> Report:
    """A model whose layers, but for the first and the last, all share the code of `piece_1`."""
    units = (
        compiled("piece_0", seconds=2.5),
        compiled("piece_1", seconds=3.25),
        *(reused(f"piece_{i}", "piece_1") for i in range(2, layers)),
        compiled(f"piece_{layers}", seconds=0.5),
    )
    return Report(
        wall_s=10.0,
        phases={"capture": 3.0, "digest": 0.05, "compile": 6.25, "stitch": 0.2, "bind": 0.5},
        pieces=layers + 1,
        unique=3,
        reused=layers - 2,
        units=units,
        variants=(VariantReport(LONG, 6.3, layers + 1, 3, layers - 2),),
        peak_memory_bytes=3 * 2**29,
    )


def test_render_collapses_reused_neighbours() -> None:
    assert_expected_inline(
        render(deep(32)),
        """\
10.00 s: 33 pieces = 3 compiled + 30 reused; peak memory 1.5 GiB

phase    seconds     %
capture    3.000  30.0
digest     0.050   0.5
compile    6.250  62.5
stitch     0.200   2.0
bind       0.500   5.0

variant seq=2..64: 3 compiled + 30 reused; 6.28 s of compiling, the build waited 6.30 s
  piece_0              compiled   2.500 s
  piece_1              compiled   3.250 s
  piece_2 .. piece_31  30 reused  0.030 s  from piece_1
  piece_32             compiled   0.500 s""",
    )


def test_render_keeps_variants_apart_and_tells_where_code_came_from() -> None:
    report = Report(
        wall_s=2.0,
        phases={"compile": 2.0},
        pieces=3,
        unique=2,
        reused=2,
        units=(
            compiled("piece_0"),
            reused("piece_1", "piece_0"),
            compiled("piece_0", ONE, 0.5),
            UnitReport("piece_1", ONE, "reused", 0.0, f"piece_0 ({LONG})"),
        ),
        variants=(VariantReport(LONG, 1.2, 2, 1, 1), VariantReport(ONE, 0.6, 2, 1, 1)),
        op_by_op=(("piece_2", "its outputs share memory"),),
    )
    assert_expected_inline(
        render(report),
        """\
2.00 s: 3 pieces, 1 of them called as operators; 4 uses in 2 variants = 2 compiled + 2 reused

phase    seconds      %
compile    2.000  100.0

variant seq=2..64: 1 compiled + 1 reused; 1.00 s of compiling, the build waited 1.20 s
  piece_0  compiled  1.000 s
  piece_1  reused    0.001 s  from piece_0

variant seq=1: 1 compiled + 1 reused; 0.50 s of compiling, the build waited 0.60 s
  piece_0  compiled  0.500 s
  piece_1  reused    0.000 s  from piece_0 (seq=2..64)

run op by op, not compiled
  piece_2  its outputs share memory""",
    )


def test_render_of_a_load() -> None:
    unit = UnitReport("piece_0", "static", "loaded", 0.004)
    assert_expected_inline(
        render(Report(1, 1, 0, (unit,), wall_s=0.01, phases={"verify": 0.01})),
        """\
0.01 s: 1 piece = 1 loaded

phase   seconds      %
verify    0.010  100.0

variant static: 1 loaded
  piece_0  loaded  0.004 s""",
    )


def test_workers_are_beside_the_wall_time() -> None:
    report = msgspec.structs.replace(deep(32), workers=WorkerReport(2, 12.5, 2**31))
    first, *_ = render(report).splitlines()
    assert first == (
        "10.00 s: 33 pieces = 3 compiled + 30 reused; peak memory 1.5 GiB; "
        "2 workers compiled for 12.50 s, with at most 2.0 GiB"
    )
    assert report.to_dict()["workers"] == {
        "processes": 2,
        "seconds": 12.5,
        "peak_memory_bytes": 2**31,
    }
    assert "workers" not in report.reproducible()


def test_render_of_nothing() -> None:
    assert_expected_inline(render(Report(0, 0, 0, wall_s=0.0, phases={})), """0.00 s: 0 pieces""")


@given(
    pieces=st.integers(0, 200),
    variants=st.integers(1, 60),
    max_rows=st.integers(0, 60),
    alike=st.booleans(),
)
def test_render_stays_short(pieces: int, variants: int, max_rows: int, alike: bool) -> None:
    units = tuple(
        reused(f"piece_{p}", "piece_0" if alike else f"other_{p}", f"seq={v}")
        for v in range(variants)
        for p in range(pieces)
    )
    names = tuple(VariantReport(f"seq={v}", 0.0, pieces, 0, pieces) for v in range(variants))
    report = Report(pieces, 0, pieces, units, names, wall_s=1.0, phases={})
    lines = render(report, max_rows).splitlines()
    headings = [line for line in lines if line.startswith("variant ")]
    assert len(headings) == variants
    assert len([line for line in lines if line.startswith("  ")]) <= max_rows


def test_rows_that_are_left_out_are_counted() -> None:
    units = tuple(compiled(f"piece_{i}", seconds=0.5) for i in range(10))
    last = render(Report(10, 10, 0, units, wall_s=5.0, phases={}), max_rows=4).splitlines()[-1]
    assert last.split() == ["and", "7", "more", "compiled", "3.500", "s"]


def test_str_is_the_rendering() -> None:
    assert str(deep(4)) == render(deep(4))


def test_json_round_trip() -> None:
    report = msgspec.structs.replace(deep(5), op_by_op=(("piece_9", "a generator is an input"),))
    plain = report.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert msgspec.convert(plain, Report) == report
    assert list(plain["phases"]) == ["capture", "digest", "compile", "stitch", "bind"]


def test_columns() -> None:
    assert columns([("a", "10"), ("long", "5")], "<>") == ["a     10", "long   5"]
    assert columns([], "<>") == []


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "2 KiB"), (5 * 2**20, "5 MiB"), (3 * 2**29, "1.5 GiB")],
)
def test_memory(size: int, text: str) -> None:
    assert memory(size) == text
