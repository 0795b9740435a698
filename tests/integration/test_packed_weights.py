"""What depends on weights alone is made once, and again when they change."""

from __future__ import annotations

import copy
import gc
import os
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim, Options

pytestmark = pytest.mark.usefixtures("kept_pieces")

Shapes = dict[str, Any]


class Mlp(nn.Module):
    def __init__(self, wide: int = 48) -> None:
        super().__init__()
        self.up = nn.Linear(32, wide)
        self.down = nn.Linear(wide, 32)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(x)))


class Heads(nn.Module):
    """Projections that share an input."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q(x).sin(), self.k(x), self.v(x).cos()


def packing(program: hotstart.Program) -> int:
    """How many of the preparations of a program's units pack weights."""
    return sum(p.packs for unit in program.artifact.units for p in unit.preparations)


def same(model: Callable[..., Any], program: hotstart.Program, *args: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(program(*args), model(*args), rtol=1e-4, atol=1e-5)


ROWS: Shapes = {"x": {0: Dim("rows", min=1, max=64)}}
ALWAYS = Options(pack_weights="always")


@pytest.fixture
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return Mlp().eval()


@pytest.fixture
def program(mlp: nn.Module) -> hotstart.Program:
    return hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)


def test_linears_run_on_packed_weights(mlp: nn.Module, program: hotstart.Program) -> None:
    assert packing(program) == 2
    for rows in (1, 2, 17, 64):
        same(mlp, program, torch.randn(rows, 32))
    assert program.report.packed.bytes >= 2 * 32 * 48 * 4


def test_without_packing_nothing_is_prepared(mlp: nn.Module) -> None:
    options = Options(pack_weights=False)
    program = hotstart.compile(mlp, (torch.randn(4, 32),), options=options)
    assert not any(unit.preparations for unit in program.artifact.units)
    assert program.report.packed.tensors == 0


def test_a_sum_with_a_transposed_tensor_serves_every_batch() -> None:
    torch.manual_seed(0)
    mlp = Mlp().eval()

    def transposed(x: Tensor) -> Tensor:
        made: Tensor = mlp(x.transpose(1, 2))
        return made

    images = {"x": {0: Dim("batch", min=1, max=16)}}
    program = hotstart.compile(
        transposed, (torch.randn(2, 32, 9),), dynamic_shapes=images, options=ALWAYS
    )
    assert packing(program)
    assert not program.report.splits
    for batch in (1, 2, 16):
        same(transposed, program, torch.randn(batch, 32, 9))


class Int8(nn.Module):
    """A linear on weights that are packed as int8 when the model is made."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (64, 64), dtype=torch.int8))
        self.register_buffer("scales", torch.rand(64) / 127)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scales)
        return made.relu()


class Int4(nn.Module):
    """A linear on weights that are packed as int4 when the model is made."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randint(0, 16, (64, 64), dtype=torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight, 2)
        self.register_buffer("weight", packed)
        self.register_buffer("scales", torch.rand(2, 64, 2))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.weight, 32, self.scales)
        return made.relu()


@pytest.mark.parametrize("quantised", [Int8, Int4])
def test_weights_that_the_model_packed_itself_are_read_as_they_are(
    quantised: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(quantised(), quantised()).eval()
    rows = {"input": ROWS["x"]}
    program = hotstart.compile(model, (torch.randn(4, 64),), dynamic_shapes=rows, options=ALWAYS)
    for count in (1, 5, 64):
        x = torch.randn(count, 64)
        assert torch.equal(program(x), model(x))
    model.load_state_dict(nn.Sequential(quantised(), quantised()).state_dict())
    assert torch.equal(program(x), model(x))
    assert program.report.packed.bytes == 0


def test_repeated_layers_share_a_unit_and_not_what_is_made_of_their_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(Mlp() for _ in range(4))).eval()
    program = hotstart.compile(
        model, (torch.randn(4, 32),), dynamic_shapes={"input": ROWS["x"]}, options=ALWAYS
    )
    plain = hotstart.compile(
        model,
        (torch.randn(4, 32),),
        dynamic_shapes={"input": ROWS["x"]},
        options=Options(pack_weights=False),
    )
    assert len(program.artifact.units) == len(plain.artifact.units)
    same(model, program, torch.randn(9, 32))


@pytest.mark.parametrize("change", ["copy", "load_state_dict", "assign", "add", "data_set"])
def test_changed_weights_are_packed_again(mlp: Mlp, program: hotstart.Program, change: str) -> None:
    x = torch.randn(5, 32)
    before = program(x)
    other = Mlp().eval()
    with torch.no_grad():
        match change:
            case "copy":
                mlp.up.weight.copy_(other.up.weight)
            case "load_state_dict":
                mlp.load_state_dict(other.state_dict())
            case "assign":
                mlp.load_state_dict(other.state_dict(), assign=True)
            case "add":
                mlp.down.weight.add_(1.0)
            case "data_set":
                mlp.up.weight.data = other.up.weight.detach().clone()
    same(mlp, program, x)
    assert not torch.equal(before, program(x))


def test_what_is_not_noticed_is_refreshed(mlp: Mlp, program: hotstart.Program) -> None:
    x = torch.randn(5, 32)
    program(x)
    mlp.up.weight.data.mul_(2.0)
    program.refresh()
    same(mlp, program, x)


def test_only_what_was_made_of_changed_weights_is_made_again(
    mlp: Mlp, program: hotstart.Program
) -> None:
    x = torch.randn(5, 32)
    program(x)
    kept = program._binding._prepared
    with torch.no_grad():
        mlp.up.weight.mul_(2.0)
    program(x)
    new = program._binding._prepared
    assert kept is not None
    assert new is not None
    assert kept is not new
    assert len(kept._made.keys() & new._made.keys()) == len(kept._made)
    assert sum(new._made[key] is made for key, made in kept._made.items()) == 1


def test_a_weight_that_is_also_read_unpacked_stays_right() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(40, 16)
            self.head = nn.Linear(16, 40, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens))

    torch.manual_seed(0)
    model = Tied().eval()
    tokens = torch.randint(0, 40, (3, 7))
    program = hotstart.compile(model, (tokens,), options=ALWAYS)
    same(model, program, tokens)
    with torch.no_grad():
        model.embedding.weight.mul_(3.0)
    same(model, program, tokens)


def test_no_rows() -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    rows: Shapes = {"x": {0: Dim("rows", min=0, max=8)}}
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=rows, options=ALWAYS)
    for count in (0, 1, 8):
        same(model, program, torch.randn(count, 32))


def test_parts_of_a_range_share_what_is_made() -> None:
    torch.manual_seed(0)
    model = Mlp().eval()
    rows: Shapes = {"x": {0: Dim("rows", ranges=[(1, 8), (9, 64)])}}
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=rows, options=ALWAYS)
    same(model, program, torch.randn(4, 32))
    assert packing(program) == 4
    assert program.report.packed.bytes == 2 * 32 * 48 * 4


def test_projections_of_one_input_become_one() -> None:
    torch.manual_seed(0)
    model = Heads().eval()
    program = hotstart.compile(model, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
    (unit,) = program.artifact.units
    for rows in (1, 5):
        same(model, program, torch.randn(rows, 32))
    assert len(re.findall(r"_linear_pointwise[\w.]*\(", unit.source)) == 1


def convolutions() -> list[Any]:
    image, wide = (2, 8, 12, 12), (2, 16, 12, 12)
    normed = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    layers: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "plain": (nn.Conv2d(8, 16, 3, padding=1), image),
        "1x1": (nn.Conv2d(8, 16, 1), image),
        "one channel": (nn.Conv2d(1, 8, 3), (2, 1, 12, 12)),
        "depthwise": (nn.Conv2d(16, 16, 3, groups=16, bias=False), wide),
        "groups": (nn.Conv2d(16, 32, 3, groups=4, stride=2), wide),
        "dilated": (nn.Conv2d(8, 16, 3, dilation=2), image),
        "transposed": (nn.ConvTranspose2d(8, 16, 3, stride=2), image),
        "3d": (nn.Conv3d(4, 8, 3), (2, 4, 6, 6, 6)),
        "1d": (nn.Conv1d(8, 16, 3), (2, 8, 20)),
        "batch norm": (normed, image),
    }
    slow = {("groups", "image"), ("dilated", "image"), ("one channel", "image")}
    return [
        pytest.param(
            layer,
            shape,
            ranges,
            id=f"{name}-{ranges}",
            marks=[pytest.mark.slow] if ranges == "static" or (name, ranges) in slow else [],
        )
        for name, (layer, shape) in layers.items()
        for ranges in ("static", "batch", "image")
        if ranges != "image" or len(shape) == 4
    ]


@pytest.mark.parametrize(("layer", "shape", "ranges"), convolutions())
def test_convolutions(layer: nn.Module, shape: tuple[int, ...], ranges: str) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).relu()

    torch.manual_seed(0)
    model = Model().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    dims: Shapes = {}
    if ranges == "batch":
        dims = {"x": {0: Dim("batch", min=1, max=8)}}
    if ranges == "image":
        dims = {"x": {2: Dim("high", min=5, max=40), 3: Dim("wide", min=5, max=40)}}
    program = hotstart.compile(model, (torch.randn(shape),), dynamic_shapes=dims, options=ALWAYS)
    same(model, program, torch.randn(shape))
    if ranges == "batch":
        for batch in (1, 3, 8):
            same(model, program, torch.randn(batch, *shape[1:]))
    if ranges == "image":
        for high, wide in ((5, 5), (7, 40), (40, 9)):
            same(model, program, torch.randn(*shape[:2], high, wide))
    same(model, program, torch.randn(shape).to(memory_format=torch.preserve_format))


def test_statistics_that_batches_change_are_folded_again() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)).eval()
    x = torch.randn(2, 3, 9, 9)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    same(model, program, x)
    model.train()
    with torch.no_grad():
        model(x * 3 + 1)
    model.eval()
    same(model, program, x)


def test_convolutions_scaled_by_different_numbers() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) * 2.0 + self.other(x) * 5.0

    torch.manual_seed(0)
    model = Scaled().eval()
    x = torch.randn(1, 3, 9, 9)
    same(model, hotstart.compile(model, (x,), options=ALWAYS), x)


def test_a_result_that_follows_from_weights_alone_is_new_in_every_call() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(8))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x * self.scale, self.scale.exp()

    model = Constant().eval()
    x = torch.randn(3, 8)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    program(x)[1].zero_()
    same(model, program, x)
    with torch.no_grad():
        model.scale.add_(1.0)
    same(model, program, x)


def test_a_weight_that_forward_writes_to_is_left_alone() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("seen", torch.zeros(8))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1.0)
            return self.linear(x) + self.seen.exp()

    torch.manual_seed(0)
    model, other = Counting().eval(), Counting().eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(3, 8)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    for _ in range(3):
        with torch.no_grad():
            torch.testing.assert_close(program(x), other(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Mlp().eval().to(dtype)
    x = torch.randn(6, 32, dtype=dtype)
    program = hotstart.compile(model, (x,), dynamic_shapes=ROWS, options=ALWAYS)
    for rows in (1, 6, 64):
        x = torch.randn(rows, 32, dtype=dtype)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x), rtol=2e-2, atol=2e-2)


def test_recurrent_layers() -> None:
    torch.manual_seed(0)
    model = nn.LSTM(16, 24, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    program = hotstart.compile(model, (x,), options=ALWAYS)
    same(model, program, x)


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


def test_replaced_weights_are_not_kept_alive(mlp: Mlp, program: hotstart.Program) -> None:
    x = torch.randn(5, 32)
    program(x)
    old = weakref.ref(mlp.up.weight)
    mlp.load_state_dict(Mlp().state_dict(), assign=True)
    program(x)
    gc.collect()
    assert old() is None


def test_what_another_program_writes_is_noticed() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(8))

        def bump(self, x: Tensor) -> Tensor:
            self.scale.add_(x)
            return x + 1

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale.exp()

    model = Counting().eval()
    x = torch.randn(8)
    writes = hotstart.compile(model.bump, (x,))
    reads = hotstart.compile(model, (x,))
    for _ in range(3):
        same(model, reads, x)
        writes(x)
    both = hotstart.compile(
        model,
        calls={"run": hotstart.Call(args=(x,)), "bump": hotstart.Call(args=(x,), method="bump")},
    )
    for _ in range(3):
        same(model, both["run"], x)
        both["bump"](x)


def test_batch_normalisation_that_a_program_trains_is_noticed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16))
    x = torch.randn(2, 3, 9, 9)
    trains = hotstart.compile(model.train(), (x,))
    runs = hotstart.compile(model.eval(), (x,), options=ALWAYS)
    for _ in range(2):
        same(model, runs, x)
        model.train()
        trains(x * 2 + 1)
        model.eval()


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


def test_results_of_weights_alone_are_laid_out_as_in_eager() -> None:
    class Results(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            made = self.a.sin()
            return made, made[0], self.a.cos().expand(2, 8, 8), x.sin()

    model = Results().eval()
    x = torch.randn(3)
    program = hotstart.compile(model, (x,))
    same(model, program, x)
    made, row, expanded, _ = program(x)
    made.zero_()
    assert not row.any()
    assert expanded.stride() == (0, 8, 1)


def test_numbers_are_folded_one_after_the_other() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * 2.0 - 3.0

    torch.manual_seed(0)
    model = Scaled().eval()
    x = torch.randn(1, 3, 9, 9)
    program = hotstart.compile(model, (x,))
    same(model, program, x)
    assert program.artifact.units[0].preparations


def test_arithmetic_on_sizes_writes_to_nothing() -> None:
    class Positions(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            return x + torch.arange(length * 2 + 1)[:length].float() * (length * length)

    dims: Shapes = {"x": {0: Dim("batch", min=2, max=4), 1: Dim("seq", min=2, max=16)}}
    program = hotstart.compile(Positions(), (torch.randn(2, 5),), dynamic_shapes=dims)
    assert program.report.op_by_op == ()
    same(Positions(), program, torch.randn(3, 7))


@pytest.mark.usefixtures("compiled_anew")
def test_what_cannot_be_packed_is_reported(mlp: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def asks_for_a_value(*_: Any) -> Any:
        raise RuntimeError("no value here")

    monkeypatch.setattr("hotstart._torch.compile_fx.separate", asks_for_a_value)
    program = hotstart.compile(mlp, (torch.randn(4, 32),), dynamic_shapes=ROWS, options=ALWAYS)
    assert program.report.not_packed == (("piece_0", "RuntimeError: no value here"),)
    assert "run on weights that are not packed" in str(program.report)
    same(mlp, program, torch.randn(5, 32))
