"""The benchmark against peers: what it computes from runs, and the page that is made of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import bench_peers, report_peers
from benchmarks.peers import PEERS, summary, worker
from benchmarks.peers.subjects import SUBJECTS


def run(ms: float, *, relative_error: float = 1e-6, others: float = 0.0) -> dict[str, Any]:
    """What a process that timed a call found."""
    call = {
        "ms": ms,
        "q1_ms": ms * 0.9,
        "q3_ms": ms * 1.1,
        "max_abs_error": relative_error,
        "relative_error": relative_error,
        "others_cores": others,
    }
    return {
        "busy_before": 0.01,
        "import_s": 0.5,
        "module_s": 9.0,
        "load_s": 0.25,
        "first_call_s": 1.0,
        "peak_bytes": 300_000_000,
        "resident_bytes": 200_000_000,
        "calls": {"1x8": call},
    }


def peer(*runs: dict[str, Any]) -> dict[str, Any]:
    return {
        "build": {"build_s": 12.0, "file_bytes": 4_500_000},
        **summary.medians_of(runs),
        "runs": list(runs),
    }


def model(title: str, **peers: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": title,
        "sizes": ["1x8"],
        "weights_bytes": 90_000_000,
        "machine": {"processor": "a processor", "cores": 2, "threads": 2, "python": "3.11.7"},
        "versions": {"torch": "2.13.0"},
        "rounds": 3,
        "idle": True,
        "peers": peers,
    }


def sample() -> dict[str, Any]:
    """A report of two models."""
    models = {
        "minilm": model(
            "MiniLM",
            eager=peer(run(4), run(6), run(5)),
            openvino=peer(run(2)),
            hotstart=peer(run(1)),
        ),
        "moe": model(
            "MoE",
            eager=peer(run(8)),
            openvino={"build": {"error": "Broken: no `such` op"}, "error": "Broken: no `such` op"}
            | {"runs": []},
            onnx_runtime=peer(run(1, relative_error=0.1)),
            hotstart=peer(run(16)),
        ),
    }
    titles = {name: each.title for name, each in PEERS.items()}
    return {"titles": titles, "ratios": summary.ratios(models), "models": models}


def test_medians_over_rounds_and_the_largest_error() -> None:
    found = summary.medians_of([run(4), run(9, relative_error=2e-6), run(5)])
    assert found["calls"]["1x8"]["ms"] == 5
    assert found["calls"]["1x8"]["relative_error"] == 2e-6
    assert not found["calls"]["1x8"]["wrong"]


@pytest.mark.parametrize("error", [2e-3, float("nan")])
def test_a_result_that_is_far_from_eager_is_wrong(error: float) -> None:
    assert summary.medians_of([run(4, relative_error=error)])["calls"]["1x8"]["wrong"]


def test_one_failed_run_is_a_failure() -> None:
    assert summary.medians_of([run(4), {"error": "Killed"}]) == {"error": "Killed"}


def test_ratios_are_to_the_best_peer_that_is_right() -> None:
    found = summary.ratios(sample()["models"])
    assert found["rows"] == {
        "minilm 1x8": {
            "best": "openvino",
            "over_best": {"eager": 2.5, "openvino": 1.0, "hotstart": 0.5},
        },
        "moe 1x8": {"best": "eager", "over_best": {"eager": 1.0, "hotstart": 2.0}},
    }
    means = found["geometric_mean"]
    assert means["hotstart"] == {"ratio": pytest.approx(1.0), "rows": 2}
    assert means["eager"] == {"ratio": pytest.approx(2.5**0.5), "rows": 2}
    assert means["openvino"] == {"ratio": pytest.approx(1.0), "rows": 1}
    assert "onnx_runtime" not in means


def test_a_busy_machine_is_told_from_an_idle_one() -> None:
    blip = peer(run(4, others=0.02), run(4, others=0.7), run(4, others=0.05))
    assert summary.others_cores({"eager": blip}) == 0.05
    assert summary.others_cores({"eager": blip, "openvino": peer(run(4, others=0.7))}) == 0.7
    assert summary.others_cores({"eager": {"busy_before": 0.9}}) == 0.9
    assert summary.others_cores({"openvino": {"error": "Broken"}}) == 0


def test_a_model_is_replaced_in_the_json_and_the_others_stay(tmp_path: Path) -> None:
    file, models = tmp_path / "peers.json", sample()["models"]
    bench_peers.keep(file, "moe", models["moe"])
    bench_peers.keep(file, "minilm", models["minilm"])
    bench_peers.keep(file, "moe", {**models["moe"], "title": "again"})
    found = json.loads(file.read_text())
    assert [each["title"] for each in found["models"].values()] == ["MiniLM", "again"]
    assert found["ratios"] == summary.ratios(found["models"])


def test_the_page_is_made_of_the_report_and_its_text_stays() -> None:
    report = sample()
    page = report_peers.filled(report_peers.PAGE.read_text(), report_peers.parts(report))
    assert "Not measured" not in page
    assert "## What these numbers leave out" in page
    assert "| MiniLM, 1x8 | 5.00 | - | 2.00 | **1.00** |" in page
    assert "| MoE, 1x8 | **8.00** | (1.00) wrong | - | 16.0 |" in page
    assert "| MoE, 1x8 | eager | 1.00 | - | - | 2.00 |" in page
    assert "| MiniLM | 90.0 MB | 4.50 MB | - | 4.50 MB | 4.50 MB |" in page
    assert "- OpenVINO, MoE: `Broken: no 'such' op`" in page
    assert "- ONNX Runtime, MoE, 1x8: differs from eager by 1.0e-01 (above 0.001)" in page
    assert report_peers.filled(page, report_peers.parts(report)) == page


def test_a_page_without_a_marker_is_refused() -> None:
    with pytest.raises(LookupError, match="begin calls"):
        report_peers.filled("# Performance", {"calls": "|"})


def test_the_page_says_that_a_machine_was_busy() -> None:
    report = sample()
    assert "idle otherwise" in report_peers.machine_part(report)
    report["models"]["moe"]["idle"] = False
    assert "- MoE: a processor, 2 cores, 2 threads, **not idle" in report_peers.machine_part(report)


def test_the_committed_page_has_the_committed_figures() -> None:
    page = report_peers.PAGE.read_text()
    if not report_peers.FIGURES.exists():
        assert "Not measured yet." in page
        return
    report = json.loads(report_peers.FIGURES.read_text())
    assert report_peers.filled(page, report_peers.parts(report)) == page


def test_plots_are_drawn_and_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for folder in ("once", "again"):
        report_peers.draw(sample(), tmp_path / folder)
    drawn = sorted((tmp_path / "once").iterdir())
    assert [file.name for file in drawn] == [
        "peers-calls.svg",
        "peers-means.svg",
        "peers-start.svg",
    ]
    for file in drawn:
        assert ET.parse(file).getroot().tag.endswith("svg")
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_differences_are_relative_to_the_largest_number() -> None:
    expected = np.array([-4.0, 1.0], dtype=np.float32)
    found = worker.difference(np.array([-4.0, 1.5], dtype=np.float32), expected)
    assert found == {"max_abs_error": 0.5, "relative_error": 0.125}
    assert "shape" in worker.difference(expected[:1], expected)["error"]


def test_the_first_line_of_an_error_says_something() -> None:
    cause = ValueError("\n=====\n  no \x1b[96msuch\x1b[0m op\nmore")
    assert worker.first_line(cause) == "ValueError: no such op"
    outer = RuntimeError("it failed")
    outer.__cause__ = cause
    assert worker.first_line(outer) == "ValueError: no such op"


def test_a_peer_whose_packages_are_missing_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "open" in name else name)
    assert bench_peers.available(["eager", "openvino"]) == ["eager"]
    assert capsys.readouterr().err == "skipped: OpenVINO: no package openvino\n"


def test_subjects_have_inputs_of_the_sizes_they_name() -> None:
    for subject in SUBJECTS.values():
        assert 1 not in subject.example
        for sizes in (*subject.sizes, subject.example):
            arrays = subject.arrays(sizes)
            assert list(arrays) == [each.name for each in subject.inputs]
            for axis, size in zip(subject.axes, sizes, strict=True):
                assert axis.min <= size <= axis.max
        assert len({subject.label(sizes) for sizes in subject.sizes}) == len(subject.sizes)
    assert SUBJECTS["minilm"].arrays((8, 32))["input_ids"].shape == (8, 32)
    assert SUBJECTS["llama"].label((16,)) == "1x16"
    assert SUBJECTS["resnet"].label((4,)) == "batch 4"
