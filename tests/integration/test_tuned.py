"""Linears are computed in the way that was the fastest when it was measured."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options
from hotstart.compilers import Job
from hotstart.torchfree.needs import needs_torch
from tests.integration.tuning import (
    PROVEN,
    ROWS,
    TUNED,
    Mixed,
    Mlp,
    Position,
    Sevens,
    Step,
    deciding,
    measured,
    measured_once,
)
from tests.versions import has_template


@pytest.fixture
def few_by_template(pieces_folder: Path) -> Iterator[None]:
    with deciding(measured, pieces_folder / "few_by_template"):
        yield


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture
def all_by_template(pieces_folder: Path) -> Iterator[None]:
    with deciding(measured_once, pieces_folder / "all_by_template"):
        yield


def saved(file: Path) -> Path:
    model, x = Mlp().eval(), torch.randn(4, 32)
    hotstart.compile(model, (x,), dynamic_shapes=ROWS, options=PROVEN).save(file)
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, pieces_folder: Path) -> Path:
    """A program with a body for few rows and one for more."""
    with deciding(measured, pieces_folder / "few_by_template"):
        return saved(tmp_path_factory.mktemp("two") / "model.hot")


@pytest.fixture(scope="module")
def file_of_one(tmp_path_factory: pytest.TempPathFactory, pieces_folder: Path) -> Path:
    """A program whose linears are computed by the template, whatever the rows."""
    with deciding(measured_once, pieces_folder / "all_by_template"):
        return saved(tmp_path_factory.mktemp("one") / "model.hot")


@pytest.fixture
def either_file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


BOTH_FILES = pytest.mark.parametrize("either_file", ["file", "file_of_one"], indirect=True)


@pytest.fixture
def program(mlp: nn.Module, file: Path) -> hotstart.Program:
    return hotstart.load(file, mlp)


def same(model: Callable[..., Any], program: hotstart.Program, *args: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-5)


def ways(program: hotstart.Program) -> set[str]:
    return {unit.linears for unit in program.artifact.units}


@pytest.mark.slow
@has_template
def test_few_rows_and_many_have_bodies_of_their_own(
    mlp: nn.Module, program: hotstart.Program
) -> None:
    way = "template up to 22 rows, packed for more"
    assert ways(program) == {way}
    assert program.report.linears == (("piece_0", way),)
    assert way in str(program.report)
    for rows in (1, 2, 3, 8, 22, 23, 63, 64):
        same(mlp, program, torch.randn(rows, 32))


@pytest.mark.slow
def test_without_rows_nothing_is_computed(few_by_template: None, mlp: nn.Module) -> None:
    shapes = {"x": {0: Dim("rows", min=0, max=16)}}
    program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=shapes, options=TUNED)
    for rows in (0, 1, 16):
        same(mlp, program, torch.randn(rows, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wide", [33, *(pytest.param(w, marks=pytest.mark.slow) for w in (1, 7, 200))]
)
def test_widths_that_leave_a_block_over(few_by_template: None, wide: int) -> None:
    model = Mlp(wide, 17).eval()
    program = hotstart.compile(model, (torch.randn(4, 17),), dynamic_shapes=ROWS, options=TUNED)
    for rows in (1, 5, 64):
        same(model, program, torch.randn(rows, 17))


@pytest.mark.slow
def test_changed_weights_are_laid_out_again(mlp: Mlp, program: hotstart.Program) -> None:
    with torch.no_grad():
        mlp.up.weight.mul_(2.0)
    mlp.down.load_state_dict(Mlp().down.state_dict())
    for rows in (2, 40):
        same(mlp, program, torch.randn(rows, 32))


@pytest.mark.slow
def test_weights_anywhere_in_memory(few_by_template: None) -> None:
    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.randn(3 * 32 * 32 + 5)
            for number, name in enumerate("abc"):
                weight = memory.as_strided((32, 32), (32, 1), 5 + number * 32 * 32)
                self.register_buffer(name, weight if name != "c" else weight.t())

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.linear(x, self.a).relu()
            return nn.functional.linear(nn.functional.linear(x, self.b).relu(), self.c)

    model = Slices().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    for rows in (3, 50):
        same(model, program, torch.randn(rows, 32))


@pytest.mark.slow
def test_projections_that_share_an_input_or_a_weight(few_by_template: None) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(32, width) for width in (32, 16, 16))
            self.again = nn.Linear(32, 32)
            self.again.weight = self.q.weight

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            q = self.q(x).sin()
            return q, self.k(x), self.v(x).cos(), self.again(q), q @ self.q.weight

    model = Shared().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    for rows in (3, 50):
        same(model, program, torch.randn(rows, 32))


@pytest.mark.slow
@has_template
def test_two_axes_and_a_static_model(few_by_template: None, mlp: nn.Module) -> None:
    shapes = {"x": {0: Dim("batch", min=1, max=8), 1: Dim("seq", min=1, max=16)}}
    program = hotstart.compile(mlp, (torch.randn(2, 3, 32),), dynamic_shapes=shapes, options=TUNED)
    for sizes in ((1, 1), (1, 16), (8, 1), (3, 7), (8, 16)):
        same(mlp, program, torch.randn(*sizes, 32))
    static = hotstart.compile(mlp, (torch.randn(4, 32),), options=TUNED)
    assert ways(static) == {"template"}
    same(mlp, static, torch.randn(4, 32))


@pytest.mark.slow
def test_half_precision(few_by_template: None) -> None:
    model = Mlp().eval().bfloat16()
    x = torch.randn(4, 32, dtype=torch.bfloat16)
    program = hotstart.compile(model, (x,), dynamic_shapes=ROWS, options=TUNED)
    with torch.no_grad():
        torch.testing.assert_close(program(x), model(x), rtol=2e-2, atol=2e-2)


@pytest.mark.thorough
@has_template
@BOTH_FILES
@pytest.mark.parametrize("pack", ["now", "first_call", "background", "never"])
def test_a_file_is_loaded_with_and_without_packing(
    mlp: nn.Module, either_file: Path, pack: Any
) -> None:
    loaded = hotstart.load(either_file, mlp, pack=pack)
    for rows in (1, 8, 40, 2):
        same(mlp, loaded, torch.randn(rows, 32))
    if pack != "background":
        assert (loaded.report.packed.bytes > 0) == (pack != "never")


@has_template
@BOTH_FILES
def test_weights_that_are_laid_out_can_be_released(mlp: Mlp, either_file: Path) -> None:
    program = hotstart.load(either_file, mlp)
    x, y = torch.randn(3, 32), torch.randn(50, 32)
    before = program(x), program(y)
    program.release_unpacked()
    torch.testing.assert_close((program(x), program(y)), before, rtol=0, atol=0)
    with pytest.raises(hotstart.HotstartError, match="release_unpacked"):
        mlp.up.weight.sum()


@has_template
@BOTH_FILES
def test_a_tuned_program_runs_where_there_is_no_torch(mlp: Mlp, either_file: Path) -> None:
    assert needs_torch(hotstart.load(either_file, mlp).artifact) == ""


@pytest.mark.slow
def test_what_is_taken_unpacked_is_made_only_there(all_by_template: None, tmp_path: Path) -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(32, 48)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.up.weight * 2.0, self.up.bias + 1.0).relu()

    model = Folded().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    program.save(tmp_path / "model.hot")
    packed = hotstart.load(tmp_path / "model.hot", model, pack="now")
    plain = hotstart.load(tmp_path / "model.hot", model, pack="never")
    for loaded in (packed, plain):
        same(model, loaded, torch.randn(5, 32))
    assert packed.report.packed.bytes == 4 * (32 * 48 + 48)


@pytest.mark.slow
def test_pieces_that_take_some_values_only_are_measured_or_left() -> None:
    x = torch.randn(4, 32)
    for model, more in (
        (Position().eval(), ()),
        (Step().eval(), (torch.tensor([0.5]),)),
    ):
        program = hotstart.compile(model, (x, *more), dynamic_shapes=ROWS, options=TUNED)
        other = type(model)().eval()
        other.load_state_dict(model.state_dict())
        same(other, program, x, *more)
        same(other, program, torch.randn(30, 32), *more)


@pytest.mark.slow
def test_sizes_that_meet_a_condition_only(few_by_template: None) -> None:
    model = Sevens().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    for rows in (1, 6, 7, 14, 63, 64):
        same(model, program, torch.randn(rows, 32))


@pytest.mark.slow
def test_a_weight_that_the_template_does_not_compute_everywhere(few_by_template: None) -> None:
    model, y = Mixed().eval(), torch.randn(32, 3)
    program = hotstart.compile(model, (torch.randn(4, 32), y), dynamic_shapes=ROWS, options=PROVEN)
    assert not program.report.without
    for rows in (1, 40):
        same(model, program, torch.randn(rows, 32), y)


@pytest.mark.thorough
@has_template
def test_a_build_that_finds_pieces_measures_nothing(
    mlp: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(job: Job, units: Any, points: Any) -> Any:
        calls.append(job)
        return measured(job, units, points)

    monkeypatch.setattr("hotstart.compilers.choose.measured", counted)

    def build(model: nn.Module) -> hotstart.Program:
        x = torch.randn(4, 32)
        shapes = dict.fromkeys(inspect.signature(model.forward).parameters, ROWS["x"])
        return hotstart.compile(
            model, (x,), dynamic_shapes=shapes, options=TUNED, cache=tmp_path / "cache"
        )

    build(nn.Sequential(mlp).eval())
    assert calls
    calls.clear()
    same(mlp, build(mlp), torch.randn(9, 32))
    assert not calls


@pytest.mark.slow
def test_it_does_not_matter_how_many_threads_openmp_gives(
    mlp: nn.Module, file: Path, tmp_path: Path
) -> None:
    x = torch.randn(20, 32)
    with torch.no_grad():
        torch.save((x, mlp(x), mlp.state_dict()), tmp_path / "expected.pt")
    code = f"""
import sys, torch, hotstart
from torch import nn
class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(32, 48), nn.Linear(48, 32, bias=False)
    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(x)))
x, expected, state = torch.load({str(tmp_path / "expected.pt")!r})
mlp = Mlp().eval()
mlp.load_state_dict(state)
program = hotstart.load({str(file)!r}, mlp)
torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-5)
"""
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.thorough
@has_template
@pytest.mark.parametrize(
    ("few", "many", "expected"),
    [
        ((1.0, 2.0, 3.0), (3.0, 2.0, 1.0), "template up to 22 rows, plain for more"),
        pytest.param(*((3.0, 1.0, 2.0),) * 2, "packed", marks=pytest.mark.slow),
        ((1.0, 1.5, 2.0), (1.06, 1.0, 2.0), "template"),  # a gain that is no gain
        # Untuned is no faster, so plain is not tried.
        pytest.param(*((1.0, 1.5, 0.1),) * 2, "template", marks=pytest.mark.slow),
        ((2.0, 1.5, 1.0), (1.0, 2.0, 2.0), "plain up to 22 rows, template for more"),
    ],
)
def test_a_second_body_has_to_pay(
    mlp: nn.Module,
    request: pytest.FixtureRequest,
    pieces_folder: Path,
    few: tuple[float, ...],
    many: tuple[float, ...],
    expected: str,
) -> None:
    def times(job: Job, units: Any, points: Sequence[Mapping[str, int]]) -> Any:
        of_each = [few if prod(sizes.values()) <= 16 else many for sizes in points]
        return [(*three, 9.0)[: len(units)] for three in of_each]

    with deciding(times, pieces_folder / request.node.name):
        program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    assert ways(program) == {expected}
    for rows in (1, 22, 23, 64):
        same(mlp, program, torch.randn(rows, 32))


@pytest.mark.thorough
@has_template
def test_large_sizes_need_not_be_measured(mlp: nn.Module, pieces_folder: Path) -> None:
    def first_alone(job: Job, units: Any, points: Any) -> Any:
        return [(2.0, 1.0, *(3.0 for _ in units[2:]))]

    with deciding(first_alone, pieces_folder / "first_alone"):
        program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    assert ways(program) == {"packed"}


@pytest.mark.thorough
@has_template
def test_what_is_measured_decides(mlp: nn.Module) -> None:
    program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=TUNED)
    (way,) = ways(program)
    assert way.split(" up to ")[0] in {"template", "packed", "plain", "untuned"}
    for rows in (1, 17, 64):
        same(mlp, program, torch.randn(rows, 32))


def test_without_packing_there_is_no_choice() -> None:
    with pytest.raises(hotstart.OptionsError, match="pack_weights"):
        Options(tune=True, pack_weights=False)
    with pytest.raises(hotstart.OptionsError, match="takes True or False"):
        Options(tune="fast")  # type: ignore[arg-type]
