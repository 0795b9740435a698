"""Torch's structured trace: what a build and its workers write there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def artifacts_of(log: Path) -> list[str]:
    """The names of what a structured trace of torch has, in order."""
    records = [
        json.loads(line.partition("] ")[2])
        for line in log.read_text().splitlines()
        if "] {" in line and not line.startswith("\t")
    ]
    kinds = ("inductor_output_code",)
    return [
        record["artifact"]["name"] if "artifact" in record else kind
        for record in records
        for kind in (*kinds, "artifact")
        if kind in record
    ]


@pytest.mark.slow
def test_structured_traces_say_which_piece_each_process_compiles(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(
        """
        from tests.integration.test_workers import all_by_workers, build
        if __name__ == "__main__":
            with all_by_workers():
                build(jobs=2)
        """
    )
    environment = {**os.environ, "TORCH_TRACE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    logs = [artifacts_of(log) for log in tmp_path.iterdir()]
    here, there = sorted(logs, key=lambda names: "hotstart_report" not in names)
    assert {"hotstart_graph_0", "hotstart_entry", "hotstart_report"} <= set(here)
    assert any(name.startswith("hotstart_stitched_") for name in here)
    asked = [name for name in here if name.startswith("hotstart_compile_piece_")]
    told = [name for name in there if "output_code" in name or "hotstart_compile" in name]
    assert len(told) == 2 * len(asked) == 6
    for marker, compiled in zip(told[::2], told[1::2], strict=True):
        assert marker.endswith("_in_worker")
        assert compiled == "inductor_output_code"


@pytest.mark.slow
def test_tlparse_shows_the_pieces_of_a_build_with_the_code_of_each(tmp_path: Path) -> None:
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    tlparse = shutil.which("tlparse", path=places)
    if tlparse is None:
        pytest.skip("tlparse is not installed")
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + textwrap.dedent(
        """
        from tests.integration.test_workers import build
        if __name__ == "__main__":
            build(jobs=1)
        """
    )
    trace, pages = tmp_path / "trace", tmp_path / "html"
    environment = {**os.environ, "TORCH_TRACE": str(trace)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    (log,) = trace.iterdir()
    command = [tlparse, str(log), "-o", str(pages), "--no-browser"]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    # Kinds of records that torch has added since are unknown to it; all others it can read.
    assert re.search(r"Stats \{ ok: \d+(, unknown: \d+)? \}", told.stdout + told.stderr)
    shown = (pages / "index.html").read_text()
    for name in ("hotstart_graph_0", "hotstart_stitched_", "hotstart_entry", "hotstart_report"):
        assert name in shown
    order = re.findall(r">-_-_-_-/(hotstart_compile_piece|inductor_output_code)_", shown)
    assert order == ["hotstart_compile_piece", "inductor_output_code"] * (len(order) // 2)
    assert len(order) >= 4
    (graph,) = pages.glob("*/hotstart_graph_0_*")
    assert "piece_0: compiled, digest" in graph.read_text()
