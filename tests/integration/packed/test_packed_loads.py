"""A loaded program packs when it is told to, and gives back what it packed."""

from __future__ import annotations

import copy
import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.integration.packed.models import ALWAYS, ROWS, Mlp, same

pytestmark = pytest.mark.usefixtures("kept_pieces")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = nn.Sequential(Mlp(), Mlp()).eval()
    program = hotstart.compile(
        model, (torch.randn(4, 32),), dynamic_shapes={"input": ROWS["x"]}, options=ALWAYS
    )
    file = tmp_path_factory.mktemp("saved") / "model.hot"
    program.save(file)
    return model, file


def packed_meanwhile() -> None:
    """Wait for weights that are packed in the background."""
    for thread in threading.enumerate():
        if thread.name == "hotstart-pack":
            thread.join()


@pytest.mark.parametrize("pack", ["now", "first_call", "background", "never"])
def test_a_loaded_program_packs_when_it_is_told_to(
    saved: tuple[nn.Module, Path], pack: Any
) -> None:
    model, file = saved
    program = hotstart.load(file, model, pack=pack)
    assert (program.report.packed.bytes > 0) == (pack == "now") or pack == "background"
    x = torch.randn(5, 32)
    same(model, program, x)
    packed_meanwhile()
    assert (program.report.packed.bytes > 0) == (pack != "never")
    same(model, program, x)
    with torch.no_grad():
        model[0].up.weight.mul_(1.5)
    same(model, program, x)


def test_an_unknown_way_to_pack_is_refused(saved: tuple[nn.Module, Path]) -> None:
    model, file = saved
    with pytest.raises(hotstart.OptionsError, match="pack: got 'later'"):
        hotstart.load(file, model, pack="later")  # type: ignore[arg-type]


class TestReleased:
    """The model's own copies of packed weights can be given back."""

    @pytest.mark.thorough
    def test_the_program_goes_on_and_the_model_says_why_not(
        self, mlp: Mlp, program: hotstart.Program
    ) -> None:
        x = torch.randn(5, 32)
        with torch.no_grad():
            expected = mlp(x)
        memory = weakref.ref(mlp.up.weight)
        assert program.release_unpacked() == 2 * 32 * 48 * 4
        gc.collect()
        assert memory() is None
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
        program.refresh()
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(hotstart.ModelMismatch, match="release_unpacked"):
            mlp(x)
        with pytest.raises(hotstart.ModelMismatch, match=r"up\.weight"):
            mlp.state_dict()
        assert "Released('up.weight')" in repr(mlp.up.weight)
        assert program.release_unpacked() == 0

    def test_weights_that_are_loaded_again_are_packed(
        self, mlp: Mlp, program: hotstart.Program
    ) -> None:
        program.release_unpacked()
        other = Mlp().eval()
        mlp.load_state_dict(other.state_dict(), assign=True)
        x = torch.randn(5, 32)
        same(other, program, x)
        same(mlp, program, x)

    def test_biases_can_still_be_changed(self, mlp: Mlp, program: hotstart.Program) -> None:
        x = torch.randn(5, 32)
        with torch.no_grad():
            expected = mlp(x) + 1.0
        program.release_unpacked()
        with torch.no_grad():
            mlp.down.bias.add_(1.0)
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)

    def test_what_is_read_as_it_is_stays(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding = nn.Embedding(40, 16)

            def forward(self, tokens: Tensor) -> Tensor:
                return nn.functional.linear(self.embedding(tokens), self.embedding.weight)

        torch.manual_seed(0)
        model = Tied().eval()
        tokens = torch.randint(0, 40, (3, 7))
        program = hotstart.compile(model, (tokens,), options=ALWAYS)
        assert program.release_unpacked() == 0
        same(model, program, tokens)

    def test_a_program_that_packs_nothing_releases_nothing(
        self, saved: tuple[nn.Module, Path]
    ) -> None:
        model, file = saved
        program = hotstart.load(file, model, pack="never")
        assert program.release_unpacked() == 0
        same(model, program, torch.randn(5, 32))


@pytest.mark.parametrize("pack", ["first_call", "background"])
def test_released_weights_stay_packed_whenever_they_were(
    saved: tuple[nn.Module, Path], pack: Any
) -> None:
    model, file = copy.deepcopy(saved[0]), saved[1]
    program = hotstart.load(file, model, pack=pack)
    x = torch.randn(5, 32)
    expected = saved[0](x).detach()
    program(x)
    packed_meanwhile()
    assert program.release_unpacked() == 4 * 32 * 48 * 4
    torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
    program.refresh()
    with torch.no_grad():
        model[1].down.bias.add_(1.0)
    torch.testing.assert_close(program(x), expected + 1.0, rtol=1e-4, atol=1e-5)
    model.load_state_dict(saved[0].state_dict(), assign=True)
    for _ in range(2):
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
        packed_meanwhile()
    assert program.report.packed.bytes > 0


@pytest.mark.thorough
def test_what_is_released_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    # glibc gives a tensor's memory back by itself until it has seen a larger one go.
    del [torch.empty(30 << 18)][:]
    model = nn.Sequential(*(nn.Linear(512, 512, bias=False) for _ in range(24))).eval()
    program = hotstart.compile(model, (torch.randn(4, 512),), options=ALWAYS)
    program(torch.randn(4, 512))
    before = resident()
    assert program.release_unpacked() == 24 * 512 * 512 * 4
    gc.collect()
    assert before - resident() > 12 * 512 * 512 * 4


@pytest.mark.thorough
@pytest.mark.parametrize("pack", ["now", "background"])
def test_weights_are_prepared_in_the_dtypes_of_the_build(tmp_path: Path, pack: Any) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.randn(16, 16)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.a @ self.b)

    model = Product().eval()
    x = torch.randn(16, 16)
    hotstart.compile(model, (x,)).save(tmp_path / "model.hot", check=False)
    with torch.autocast("cpu", torch.bfloat16):
        program = hotstart.load(tmp_path / "model.hot", model, pack=pack)
    same(model, program, x)
