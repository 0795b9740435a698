"""What calls change of a checkpoint's weights lives in the program alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Call
from tests.integration.checkpoints import EAGER, X, saved
from tests.integration.shop import Counting
from tests.safetensors_files import file_of

pytestmark = pytest.mark.usefixtures("kept_pieces")


class Cache(nn.Module):
    """Writes to a persistent buffer, and to one that is none, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))
        self.register_buffer("last", torch.zeros(4), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.total.add_(x)
        result = self.total + self.last
        self.last.copy_(x)
        return result

    def peek(self, x: Tensor) -> Tensor:
        return self.total * x


def test_state_lives_in_the_program(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    calls = {"add": Call(args=(x,)), "peek": Call(args=(x,), method="peek")}
    program = hotstart.compile(Cache(), calls=calls, options=EAGER)
    program.save(tmp_path / "cache.hot", check=False)
    given = {"total": torch.ones(4)}
    weights = tmp_path / "cache.safetensors"
    weights.write_bytes(content := file_of(given))
    for source in (given, weights):
        one, two = (hotstart.load(tmp_path / "cache.hot", weights=source) for _ in range(2))
        assert one(x).tolist() == [1, 2, 3, 4]
        assert one["add"](x).tolist() == [1, 4, 7, 10]
        assert one["peek"](x).tolist() == [0, 3, 10, 21]
        assert two(x).tolist() == [1, 2, 3, 4]
    assert given["total"].tolist() == [1, 1, 1, 1]
    assert weights.read_bytes() == content


def test_the_mode_of_a_load_is_not_that_of_calls(tmp_path: Path) -> None:
    x = torch.arange(4.0)
    file, weights = saved(Cache(), tmp_path / "cache.hot", x), {"total": torch.ones(4)}
    with torch.inference_mode(), torch.device("meta"):
        program = hotstart.load(file, weights=weights)
    assert program(x).tolist() == [1, 2, 3, 4]
    with torch.inference_mode():
        assert program(x).tolist() == [1, 4, 7, 10]
    assert program(x).tolist() == [1, 5, 9, 13]


class Counters(nn.Module):
    """Writes to equal buffers that no checkpoint holds, differently."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abc":
            self.register_buffer(name, torch.arange(2.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.a.add_(x)
        self.b.sub_(x)
        return torch.stack([self.a, self.b, self.c])


def test_equal_buffers_that_are_written_to_are_apart(tmp_path: Path) -> None:
    x = torch.ones(2)
    program = hotstart.load(saved(Counters(), tmp_path / "counters.hot", x), weights={})
    program(x)
    assert program(x).tolist() == [[2, 3], [-2, -1], [0, 1]]


def test_attributes_that_calls_replace_are_read_by_the_next(tmp_path: Path) -> None:
    file = saved(Counting(), tmp_path / "counting.hot", torch.zeros(2))
    program = hotstart.load(file, weights=Counting().state_dict())
    assert [program(torch.zeros(2))[0].item() for _ in range(3)] == [1, 2, 3]


def test_statistics_go_on_from_those_of_the_checkpoint(tmp_path: Path) -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 8)).train()
    hotstart.compile(model, (X,), options=EAGER).save(tmp_path / "norm.hot", check=False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = hotstart.load(tmp_path / "norm.hot", weights=state)
    for _ in range(3):
        assert torch.equal(program(X), model(X).detach())
    assert state["0.num_batches_tracked"] == 0


def test_weights_of_a_mapping_that_are_written_to_are_prepared_again(tmp_path: Path) -> None:
    model = nn.Linear(256, 256).eval()
    options = hotstart.Options(pack_weights="always", prove="off")
    x = torch.randn(4, 256)
    hotstart.compile(model, (x,), options=options).save(tmp_path / "linear.hot", check=False)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    program = hotstart.load(tmp_path / "linear.hot", weights=weights)
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    weights["weight"].mul_(2)
    model.weight.data.mul_(2)
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_weights_of_a_file_are_prepared_again_after_who_asked_for_them_wrote(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    x = torch.randn(3, 8)
    options = hotstart.Options(pack_weights="always")
    file = saved(model, tmp_path / "model.hot", x, options=options)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    program = hotstart.load(file, weights=tmp_path / "model.pt")
    program(x)
    for _ in range(2):
        with torch.no_grad():
            program.weights["0.weight"].mul_(2.0)
            model[0].weight.mul_(2.0)
            torch.testing.assert_close(program(x), model(x))
