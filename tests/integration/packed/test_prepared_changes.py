"""Prepared weights that calls write to are the process's own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart.artifact import weights_file
from tests.integration.packed.prepared import EAGER, Saved, X
from tests.processes import run_fresh

pytestmark = pytest.mark.usefixtures("kept_pieces")


# --- what calls change ----------------------------------------------------------------------------


class Counting(nn.Module):
    """Writes to buffers, and folds one that it replaces into a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)
        self.register_buffer("total", torch.zeros(32))
        self.register_buffer("last", torch.zeros(32), persistent=False)
        self.scale = nn.Buffer(torch.ones(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        result = nn.functional.linear(x, self.linear.weight * self.scale, self.linear.bias)
        self.total.add_(result.sum(0))
        self.last.copy_(x[0])
        self.scale = self.scale + 1
        return result + self.total + self.last


@pytest.mark.thorough
def test_what_calls_write_to_is_the_process_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = Saved(tmp_path, Counting(), X)
    before = saved.weights.read_bytes()
    one, two = saved.load(), saved.load()
    expected = [saved.program(X) for _ in range(3)]
    for value in expected:
        torch.testing.assert_close(one(X), value)
    assert torch.equal(two(X), saved.load()(X))
    torch.testing.assert_close(two(X), expected[1])
    assert one.weights["total"].any()
    assert saved.weights.read_bytes() == before
    one.save_weights(tmp_path / "later.weights")
    later = saved.load(weights=tmp_path / "later.weights")
    assert torch.equal(later.weights["total"], one.weights["total"])
    assert not torch.equal(later.weights["last"], one.weights["last"])  # the program's file has it


def test_weights_that_are_one_piece_of_memory_stay_so(tmp_path: Path) -> None:
    whole = torch.randn(64, 32)

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = nn.Parameter(whole)
            self.part = nn.Parameter(whole[16:48])

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.whole.T).sum() + (x * self.part[:3]).sum()

    saved = Saved(tmp_path, Parts(), X, options=EAGER)
    loaded = saved.load()
    assert torch.equal(loaded(X), saved.program(X))
    held = loaded.weights
    assert held["part"].data_ptr() == held["whole"].data_ptr() + 16 * 32 * 4
    assert saved.weights.stat().st_size < 5 * weights_file.PAGE


def test_weights_of_any_dtype_shape_and_layout(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("nothing", torch.zeros(0, 3))
            self.register_buffer("three", torch.tensor(3))
            self.register_buffer("turned", torch.randn(5, 32).T)
            self.register_buffer("flags", torch.tensor([True, False, True]))
            self.register_buffer("short", torch.randn(3, 1).bfloat16())
            self.register_buffer("imaginary", torch.randn(3, 1, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            y = (x @ self.turned).sum(1, keepdim=True) * self.flags[:, None] + self.three
            return y + self.short + self.imaginary.real + self.nothing.sum()

    saved = Saved(tmp_path, Odd(), X, options=EAGER)
    loaded = saved.load()
    assert torch.equal(loaded(X), saved.program(X))
    for name, tensor in saved.model.named_buffers():
        assert torch.equal(loaded.weights[name], tensor)
        assert loaded.weights[name].stride() == tensor.stride()


# --- files ----------------------------------------------------------------------------------------


SHARED = """
    import json, sys
    import torch
    import hotstart
    program = hotstart.load(sys.argv[1], weights=sys.argv[2])
    program(torch.zeros(1, 1024))
    dirty, inside = 0, False
    for line in open("/proc/self/smaps"):
        first = line.split()[0]
        if "-" in first:
            inside = line.rstrip().endswith(sys.argv[2])
        elif inside and first == "Private_Dirty:":
            dirty += int(line.split()[1])
    print(json.dumps({"dirty": dirty, "packed": program.report.packed.mapped}))
"""


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says whose pages are")
def test_pages_of_weights_are_nobody_s_own(tmp_path: Path) -> None:
    saved = Saved(tmp_path, nn.Sequential(nn.Linear(1024, 1024)), torch.zeros(1, 1024))
    found = run_fresh(SHARED, saved.file, saved.weights)
    assert found["packed"] >= 1 << 22
    assert found["dirty"] == 0


class Learns(nn.Module):
    """Normalises with statistics that another call of it learns, by a function of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.mean, self.var)

    def learn(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.conv(x), self.mean, self.var, training=True)


@pytest.mark.slow
def test_statistics_that_a_call_learns_are_not_folded_into_prepared_weights(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    model, x = Learns().eval(), torch.randn(2, 3, 5, 5)
    calls = {
        "run": hotstart.Call(args=(x,)),
        "learn": hotstart.Call(args=(x,), method="learn"),
    }
    with torch.no_grad():
        program = hotstart.compile(model, calls=calls)
        program.save(tmp_path / "model.hot")
        program.save_weights(tmp_path / "model.weights")
        loaded = hotstart.load(tmp_path / "model.hot", weights=tmp_path / "model.weights")
        for _ in range(2):
            torch.testing.assert_close(loaded["run"](x), model(x))
            torch.testing.assert_close(loaded["learn"](x), model.learn(x))
        torch.testing.assert_close(loaded["run"](x), model(x))
