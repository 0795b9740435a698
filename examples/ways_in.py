"""The ways into hotstart: one part of a model, and `torch.compile`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import hotstart

BATCH = {"x": {0: hotstart.Dim("batch", max=64)}}


class Encoder(nn.Module):
    """What is worth compiling."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        """Encode vectors of 32."""
        return x + self.down(torch.relu(self.up(x)))


class Classifier(nn.Module):
    """A model with parts that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> list[int]:
        """The class of each vector, as Python numbers: no compiler has anything to do with that."""
        return self.head(self.encoder(x)).argmax(-1).tolist()


def main() -> None:
    """Go each of the ways, and compare with eager."""
    model = Classifier().eval().requires_grad_(False)
    x = torch.randn(5, 32)
    expected, encoded = model(x), model.encoder(x)

    # One part of the model; everything else stays as it is.
    program = hotstart.compile_submodule(
        model, "encoder", (torch.zeros(2, 32),), dynamic_shapes=BATCH
    )
    print(f"one part: difference {(model.encoder(x) - encoded).abs().max():.1e}")
    assert model(x) == expected
    try:
        model(torch.randn(65, 32))
    except hotstart.ContractError as error:
        print(f"refused: {error}")

    # In another process, what was saved takes the place of the same part.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "encoder.hot"
        program.save(file, check=False)
        other = Classifier().eval().requires_grad_(False)
        other.load_state_dict(model.state_dict())
        hotstart.install(hotstart.load(file, other.encoder))
    print(f"from the file: difference {(other.encoder(x) - encoded).abs().max():.1e}")
    hotstart.restore(model.encoder)

    # torch.compile: Dynamo's guards, graph breaks and recompiles; hotstart's pieces.
    stock = torch.compile(model.encoder, backend="hotstart", dynamic=True)
    print(f"torch.compile: difference {(stock(x) - encoded).abs().max():.1e}")


if __name__ == "__main__":
    main()
