"""Learn from calls what to compile: any module, whoever calls it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import hotstart


class Server(nn.Module):
    """A model that passes its encoder more than its user knows."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, lengths: list[int]) -> Tensor:
        """Encode sequences of some lengths, padded."""
        padded = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
        x = torch.ones(*padded.shape, 16)
        return self.encoder(x, src_key_padding_mask=padded.float())


def main() -> None:
    """Observe a module while its model serves, compile it, and serve with the program."""
    model = Server().eval().requires_grad_(False)
    expected = model([6, 9, 2, 4])
    with hotstart.observe(model.encoder) as calls:
        model([3, 5])
        model([7, 2, 8])
    print(calls)
    hotstart.compile_submodule(model, "encoder", calls=calls.within(max={"seq": 64}))
    print(f"difference to eager: {(model([6, 9, 2, 4]) - expected).abs().max():.0e}")


if __name__ == "__main__":
    main()
