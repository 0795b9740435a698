"""A pipeline of diffusers with random weights, denoiser and VAE through learnt programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hotstart
from tests.capturing import EAGER

diffusers = pytest.importorskip("diffusers", reason="takes diffusers")

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    # It imports torchao, which registers types in a way that torch has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def pipeline() -> Any:
    torch.manual_seed(0)
    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
        norm_elementwise_affine=False,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8)
    pipe = diffusers.DiTPipeline(transformer.eval(), vae.eval(), diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe: Any, count: int) -> Any:
    return pipe(
        class_labels=list(range(count)),
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    ).images


LABELS = [{"class_labels": labels, "num_inference_steps": 2} for labels in ([1], [1, 2])]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "error"),
    [(EAGER, 0.0), pytest.param(hotstart.Options(), 2e-5, marks=pytest.mark.slow)],
    ids=["op_by_op", "inductor"],
)
def test_a_pipeline_runs_programs_that_are_saved_and_loaded(
    tmp_path: Path, options: hotstart.Options, error: float
) -> None:
    from hotstart.integrations.diffusers import compile, load, save

    pipe, other = pipeline(), pipeline()
    expected = {count: images(pipe, count) for count in (1, 2, 3)}
    programs = compile(pipe, LABELS, max={"batch": 8}, options=options)
    assert sorted(programs) == ["transformer", "vae.decode"]
    save(programs, tmp_path / "images", check=False)
    load(tmp_path / "images", other)
    for each in (pipe, other):
        assert each.transformer.forward.program is not None
        assert each.vae.decode.program is not None
        for count, wanted in expected.items():
            assert np.abs(images(each, count) - wanted).max() <= error
    with pytest.raises(hotstart.ContractError, match="batch"):
        images(pipe, 5)
    hotstart.restore(pipe.transformer)
    hotstart.restore(pipe.vae, "decode")
    assert images(pipe, 5).shape[0] == 5


def test_what_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    from hotstart.integrations.diffusers import compile, load

    with pytest.raises(hotstart.OptionsError, match="transformer or unet"):
        compile(torch.nn.Linear(2, 2), LABELS)
    with pytest.raises(hotstart.OptionsError, match="found neither"):
        load(tmp_path, pipeline())
