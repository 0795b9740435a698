"""Random weights that are the same in every process."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    """A factory of a model in eval mode with seeded weights, none of which is left at 0 or 1.

    Biases that are all zero and scales that are all one would hide a weight that is mixed up with
    another one, so every parameter gets some noise, and so do running statistics.
    """

    def make() -> nn.Module:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            model = build().eval()
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(std=0.1)
                elif name.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5)
        return model

    return make


def pixels(batch: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Images as a processor would normalise them."""
    return torch.rand(batch, channels, height, width) * 2 - 1


def tokens(batch: int, length: int, vocabulary: int, least: int = 3) -> Tensor:
    """Token ids that avoid the special ones below `least`."""
    return torch.randint(least, vocabulary, (batch, length))


def padding_mask(batch: int, length: int) -> Tensor:
    """Ones, but for the end of the first row of a batch."""
    mask = torch.ones(batch, length, dtype=torch.long)
    if length > 2:
        mask[0, -(length // 4 + 1) :] = 0
    return mask
