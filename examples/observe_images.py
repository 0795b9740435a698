"""A pipeline of diffusers: `pip install hotstart diffusers`, to a saved program."""

from __future__ import annotations

import tempfile

import diffusers
import torch

from hotstart.integrations.diffusers import compile, load, save


def pipeline() -> diffusers.DiTPipeline:
    """A pipeline with random weights; `from_pretrained` gives one with trained ones."""
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
    return diffusers.DiTPipeline(transformer.eval(), vae.eval(), diffusers.DDIMScheduler())


def main() -> None:
    """Learn how a pipeline calls its denoiser and its VAE, compile both, save and load them."""
    pipe = pipeline()
    call = {"class_labels": [7], "num_inference_steps": 4, "output_type": "np"}
    eager = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    with tempfile.TemporaryDirectory() as folder:
        save(compile(pipe, [call]), folder)
        load(folder, pipe)
    images = pipe(**call, generator=torch.Generator().manual_seed(0)).images
    print(f"difference to eager: {abs(images - eager).max():.0e}")


if __name__ == "__main__":
    main()
