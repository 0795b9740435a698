"""Recurrent layers of every kind: see docs/semantics.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import hotstart
from hotstart import Dim
from tests.semantics import both, build, check

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

SHAPES = {"input": {0: Dim("batch", min=2, max=4), 1: Dim("steps", min=2, max=12)}}

torch.manual_seed(0)
CALLS = tuple((torch.randn(batch, steps, 6),) for batch, steps in ((2, 5), (4, 2), (3, 12)))


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True, "num_layers": 2}])
@both
def test_lstms_with_projections_serve_every_length_with_one_graph(
    settings: dict[str, Any], compiler: str
) -> None:
    model = nn.LSTM(6, 8, batch_first=True, proj_size=3, **settings).eval()
    program = check(model, *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=SHAPES)
    assert len(program.report.variants) == 1


def test_lstms_of_doubles_serve_every_length_with_one_graph() -> None:
    model = nn.LSTM(6, 8, batch_first=True).double().eval()
    calls = [(x.double(),) for (x,) in CALLS]
    program = check(model, *calls, dynamic_shapes=SHAPES)
    assert len(program.report.variants) == 1


class Autocast(nn.Module):
    """A layer under autocast."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(8, 2)

    def forward(self, input: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            steps, last = self.layer(input)
            return self.out(steps), steps, last


@pytest.mark.parametrize(
    "layer", [nn.GRU(6, 8, 2, batch_first=True), nn.RNN(6, 8, batch_first=True)]
)
@both
def test_grus_and_rnns_give_the_dtypes_of_autocast(layer: nn.Module, compiler: str) -> None:
    model = Autocast(layer).eval()
    program = check(model, *CALLS, compiler=compiler, tolerance=1e-6, dynamic_shapes=SHAPES)
    assert len(program.report.variants) == 1


def by_parametrization(layer: nn.Module) -> nn.Module:
    for name in ("weight_ih_l0", "weight_hh_l0"):
        parametrizations.weight_norm(layer, name)
    return layer


def by_hook(layer: nn.Module) -> nn.Module:
    return nn.utils.weight_norm(layer, "weight_hh_l0")


def spectral(layer: nn.Module) -> nn.Module:
    return parametrizations.spectral_norm(layer, "weight_hh_l0")


@pytest.mark.parametrize("change", [by_parametrization, by_hook, spectral])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_weights_may_be_computed_in_the_call(
    kind: type[nn.RNNBase], change: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return change(kind(6, 8, batch_first=True)).eval()

    model = make()
    with torch.no_grad():
        program = build(model, *CALLS[0], dynamic_shapes=SHAPES)
        program.save(tmp_path / "model.hot")
        other = make()
        loaded = hotstart.load(tmp_path / "model.hot", other)
        for call in (*CALLS, *CALLS):
            expected = model(*call)[0]
            assert torch.equal(program(*call)[0], expected)
            assert torch.equal(loaded(*call)[0], expected)
            assert torch.equal(other(*call)[0], expected)
