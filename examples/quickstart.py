"""Compile a small transformer for every length, call it, save it, and load it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import hotstart


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, seq, width) to the same shape."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class Transformer(nn.Module):
    """Tokens to logits."""

    def __init__(self, layers: int = 6, width: int = 64, vocabulary: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads=4) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids (batch, seq) to logits (batch, seq, vocabulary)."""
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def main() -> None:
    """Compile, look at what was reused, and compare with eager."""
    model = Transformer().eval()
    seq = hotstart.Dim("seq", max=128, sizes=[1])
    program = hotstart.compile(
        model, (torch.zeros(1, 16, dtype=torch.long),), dynamic_shapes={"tokens": {1: seq}}
    )
    print(program.report)

    for length in (1, 2, 50, 128):
        tokens = torch.randint(0, 256, (1, length))
        with torch.no_grad():
            difference = (program(tokens) - model(tokens)).abs().max()
        print(f"{length} tokens: largest difference to eager {difference:.1e}")

    try:
        program(torch.zeros(1, 129, dtype=torch.long))
    except hotstart.ContractError as error:
        print(f"refused: {error}")

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.hot")
        program.save(file)
        # In another process as here: a model of the same structure, with whatever weights.
        other = Transformer().eval()
        loaded = hotstart.load(file, other)
        print(f"{file.stat().st_size >> 10} KiB, loaded in {loaded.report.wall_s * 1e3:.1f} ms")
        with torch.no_grad():
            difference = (loaded(tokens) - other(tokens)).abs().max()
        print(f"other weights: largest difference to eager {difference:.1e}")


if __name__ == "__main__":
    main()
