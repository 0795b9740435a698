"""Real architectures give what eager gives, at every size that is special or at an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import transformers

import hotstart
from qualification.compare import largest_difference
from tests.integration.models import CASES, Case, tokens

pytestmark = pytest.mark.usefixtures("kept_pieces")

ATTENTION = "aten::scaled_dot_product_attention"


def build(case: Case, split_on: Any, compiler: Literal["op_by_op", "inductor"]) -> hotstart.Program:
    torch.manual_seed(0)
    model = case.make().eval()
    example = case.inputs(2, 16)
    return hotstart.compile(
        model,
        kwargs=example,
        dynamic_shapes=dict.fromkeys(example, case.axes),
        split_on=split_on,
        options=hotstart.Options(compiler=compiler),
    )


def worst_difference(program: hotstart.Program, case: Case) -> float:
    """The largest difference to eager over all sizes; types and shapes must be the same."""
    worst = 0.0
    with torch.no_grad():
        for batch in (1, 2, 3, 4):
            for length in case.lengths:
                inputs = case.inputs(batch, length)
                found, expected = program(**inputs), program.model(**inputs)
                worst = max(worst, largest_difference(found, expected))
    return worst


def splits(case: Case) -> list[Any]:
    return ["auto", [ATTENTION]] if case.attention else ["auto"]


ALL = [
    pytest.param(case, split, id=f"{name}-{'auto' if split == 'auto' else 'attention'}")
    for name, case in CASES.items()
    for split in splits(case)
]
LONG = {"gemma3", "gpt2", "llama", "qwen3"}
NOT_SLOW = {f"{name}-auto" for name in CASES.keys() - LONG}
EAGER = [
    each if each.id in NOT_SLOW else pytest.param(*each.values, id=each.id, marks=pytest.mark.slow)
    for each in ALL
]


@pytest.mark.parametrize(("case", "split_on"), EAGER)
def test_cut_stitched_and_loaded_it_is_eager_bit_for_bit(
    case: Case, split_on: Any, tmp_path: Path
) -> None:
    program = build(case, split_on, "op_by_op")
    assert worst_difference(program, case) == 0
    program.save(tmp_path / "model.hot", check=False)
    assert worst_difference(hotstart.load(tmp_path / "model.hot", program.model), case) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("case", "split_on"), ALL)
def test_compiled_with_inductor_it_is_eager_within_1e_5(
    case: Case, split_on: Any, tmp_path: Path
) -> None:
    program = build(case, split_on, "inductor")
    assert program.report.op_by_op == ()
    program.save(tmp_path / "model.hot")
    assert worst_difference(hotstart.load(tmp_path / "model.hot", program.model), case) < 1e-5


def test_a_small_one_compiled_with_inductor() -> None:
    case = CASES["mlp"]
    program = build(case, "auto", "inductor")
    assert program.report.op_by_op == ()
    assert worst_difference(program, case) < 1e-5


def test_layers_beyond_the_first_cost_no_compile() -> None:
    case, options = CASES["llama"], hotstart.Options(compiler="op_by_op")
    program = hotstart.compile(case.make().eval(), kwargs=case.inputs(2, 16), options=options)
    (variant,) = program.report.variants
    assert (variant.unique, variant.reused) == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize("split_on", ["auto", [ATTENTION]], ids=["auto", "attention"])
def test_a_32_layer_llama_at_every_kind_of_size(split_on: Any) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        num_hidden_layers=32,
        hidden_size=256,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=768,
        vocab_size=1024,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    seq = hotstart.Dim("seq", max=512, ranges=[(1, 64)], sizes=[1])
    program = hotstart.compile(
        model,
        kwargs=tokens(1, 16),
        dynamic_shapes={"input_ids": {1: seq}},
        split_on=split_on,
    )
    assert [variant.unique for variant in program.report.variants] == [3, 3, 3]
    assert program.report.op_by_op == ()
    with torch.no_grad():
        for length in (1, 2, 16, 63, 64, 65, 511, 512):
            inputs = tokens(1, length)
            torch.testing.assert_close(
                program(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5
            )
