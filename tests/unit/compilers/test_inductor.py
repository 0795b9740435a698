"""What the Inductor compiler promises beyond results: keys, errors, fallbacks, bounds."""

from __future__ import annotations

import logging
import math
import warnings

import pytest
import torch
from torch import Tensor, fx, nn

import hotstart
from hotstart import Dim, Options
from hotstart.compilers import InductorCompiler

pytestmark = pytest.mark.usefixtures("kept_pieces")


class DoubleEverything:
    """A custom pass, as Inductor takes them."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.ran = 0

    def __call__(self, graph: fx.Graph) -> None:
        self.ran += 1

    def uuid(self) -> str:
        return self.version


def two(x: Tensor) -> Tensor:
    return x.sin() + x.cos()


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_a_custom_pass_runs_and_is_part_of_the_key() -> None:
    first, second = DoubleEverything("1"), DoubleEverything("2")
    keys = set()
    for custom in (first, second):
        options = Options(inductor={"post_grad_custom_post_pass": custom})
        program = hotstart.compile(two, (torch.zeros(3),), options=options)
        keys |= {unit.key for unit in program.artifact.units}
    assert first.ran > 0
    assert len(keys) == 2
    assert InductorCompiler({"post_grad_custom_post_pass": DoubleEverything("1")}, 1).token() == (
        InductorCompiler({"post_grad_custom_post_pass": first}, 2).token()
    )


def test_a_pass_without_identity_is_refused() -> None:
    class Anonymous:
        def __call__(self, graph: fx.Graph) -> None:
            pass

    compiler = InductorCompiler({"post_grad_custom_post_pass": Anonymous()}, 1)
    with pytest.raises(hotstart.OptionsError, match="uuid"):
        compiler.token()


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(hotstart.OptionsError, match="no_such_setting"):
        hotstart.compile(two, (torch.zeros(3),), options=Options(inductor={"no_such_setting": 1}))


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_anew")
def test_settings_reach_inductor() -> None:
    plain = hotstart.compile(two, (torch.zeros(64),))
    # The header that was compiled for vectors is of no use, and another takes long.
    settings = {"cpp.simdlen": 0, "cpp_cache_precompile_headers": False}
    scalar = hotstart.compile(two, (torch.zeros(64),), options=Options(inductor=settings))
    x = torch.randn(64)
    torch.testing.assert_close(plain(x), scalar(x))
    first, second = ({unit.key for unit in p.artifact.units} for p in (plain, scalar))
    assert not first & second


class Broken:
    """A pass that fails, as a compiler may."""

    def __call__(self, graph: fx.Graph) -> None:
        raise RuntimeError("no registers left")

    def uuid(self) -> str:
        return "broken"


@pytest.mark.usefixtures("compiled_anew")
def test_a_piece_that_does_not_compile_is_named_with_its_layers_and_cause() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    options = Options(inductor={"post_grad_custom_post_pass": Broken()})
    with pytest.raises(hotstart.CompileError, match="no registers left") as caught:
        hotstart.compile(
            model, (torch.zeros(2, 4),), dynamic_shapes={"input": {0: Dim("b", min=2, max=8)}},
            options=options,
        )  # fmt: skip
    assert caught.value.piece == "piece_0"
    assert caught.value.variant == "b=2..8"
    assert caught.value.layers == ("0", "1")
    assert caught.value.__cause__ is not None


class Pooled(nn.Module):
    """A convolution net whose last view Inductor decides about by batch size 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(self.conv(x), (2, 3)).flatten(1)


POOLED = {"x": {0: Dim("b", max=20), 2: Dim("h", min=6, max=40), 3: Dim("w", min=6, max=40)}}


def test_a_range_the_compiler_narrows_is_split() -> None:
    model = Pooled().eval()
    program = hotstart.compile(model, (torch.zeros(2, 3, 8, 9),), dynamic_shapes=POOLED)
    assert set(program.code) == {"b=2..20,h=6..40,w=6..40", "b=1,h=6..40,w=6..40"}
    assert len(program.artifact.units) == 2
    with torch.no_grad():
        for sizes in [(1, 6, 40), (2, 7, 6), (16, 8, 9), (20, 40, 39)]:
            x = torch.randn(sizes[0], 3, *sizes[1:])
            torch.testing.assert_close(program(x), model(x))


@pytest.mark.usefixtures("compiled_anew")
def test_a_range_the_compiler_narrows_names_the_axis_where_it_may_not_be_split() -> None:
    with pytest.raises(hotstart.RangeError) as caught:
        hotstart.compile(
            Pooled().eval(),
            (torch.zeros(2, 3, 8, 9),),
            dynamic_shapes=POOLED,
            options=Options(splits=0),
        )
    assert caught.value.axis == "b"
    assert "sizes=[1]" in str(caught.value)
    assert ".flatten(1)" in str(caught.value)  # the line that it compiled


def test_an_operator_that_decides_by_size_one_inside_is_noticed() -> None:
    def squeeze(x: Tensor) -> Tensor:
        return x.squeeze(0) * 2

    rows = {"x": {0: Dim("rows", max=8)}}
    with pytest.raises(hotstart.RangeError, match="squeeze") as caught:
        hotstart.compile(
            squeeze,
            (torch.zeros(3, 4),),
            dynamic_shapes=rows,
            options=Options(compiler="op_by_op", splits=0),
        )
    assert caught.value.axis == "rows"
    program = hotstart.compile(
        squeeze, (torch.zeros(3, 4),), dynamic_shapes=rows, options=Options(compiler="op_by_op")
    )
    assert set(program.code) == {"rows=2..8", "rows=1"}
    for rows in (1, 2, 8):
        x = torch.randn(rows, 4)
        assert torch.equal(program(x), squeeze(x))


@pytest.mark.usefixtures("compiled_anew")
def test_a_piece_that_needs_torch_around_it_runs_op_by_op_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def overlapping(x: Tensor) -> Tensor:
        first, second = x[:, :2], x[:, 1:3]
        y = torch.cumsum(x, 0)
        first.add_(1)
        return second * 2 + y[:, 1:3]

    with caplog.at_level(logging.WARNING, logger="hotstart"):
        program = hotstart.compile(overlapping, (torch.zeros(2, 4),), split_on=["aten::cumsum"])
    (found,) = program.report.op_by_op
    assert found[0] == "piece_2"
    assert "share memory" in found[1]
    assert "op by op" in caplog.text
    (unit,) = (unit for unit in program.artifact.units if unit.op_by_op)
    assert unit.loose == (0,)  # nothing is known of what operators do, so the strides are checked
    (code,) = program.code.values()
    assert "add_1.stride() != " in code or "add.stride() != " in code
    mine, theirs = torch.arange(8.0).view(2, 4), torch.arange(8.0).view(2, 4)
    assert torch.equal(program(mine), overlapping(theirs))
    assert torch.equal(mine, theirs)


def test_strides_of_compiled_outputs_are_known_and_not_checked() -> None:
    def turned(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 2).transpose(0, 1), torch.cumsum(x, 0) + 1

    program = hotstart.compile(
        turned,
        (torch.zeros(3, 4),),
        dynamic_shapes={"x": {0: Dim("rows", min=2, max=64)}},
        split_on=["aten::cumsum"],
    )
    assert [unit.loose for unit in program.artifact.units] == [(), ()]
    x = torch.randn(5, 4)
    for mine, theirs in zip(program(x), turned(x), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.stride() == theirs.stride()


@pytest.mark.thorough
def test_identical_pieces_are_compiled_once() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(torch.relu(self.up(self.norm(x))))

    model = nn.Sequential(*(Block() for _ in range(6))).eval()
    program = hotstart.compile(
        model, (torch.zeros(2, 8),), dynamic_shapes={"input": {0: Dim("batch", max=8)}}
    )
    assert len(program.artifact.units) == 1
    assert [unit.reused_from for unit in program.report.units] == [
        None, *["piece_0 (batch=1..8)"] * 5,
    ]  # fmt: skip
    x = torch.randn(8, 8)
    torch.testing.assert_close(program(x), model(x).detach())


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_anew")
def test_parts_that_a_model_makes_of_a_range_share_units() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.norm(self.conv(x)).relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x.sin() if x.shape[2] % 2 == 0 else x.cos()

    net = Net().eval()
    dims = {"x": {0: Dim("batch", max=3), 2: Dim("height", min=4, max=9)}}
    program = hotstart.compile(net, (torch.randn(2, 4, 8, 6),), dynamic_shapes=dims)
    assert len(program.report.variants) == 2  # even and odd; the batch decides nothing
    first = [unit for unit in program.report.units if unit.piece.endswith("piece_0")]
    assert [unit.action for unit in first] == ["compiled", "reused"]
    with torch.no_grad():
        for batch in (1, 2, 3):
            for height in range(4, 10):
                x = torch.randn(batch, 4, height, 6)
                torch.testing.assert_close(program(x), net(x))


@pytest.mark.thorough
def test_nothing_compiles_in_a_call() -> None:
    from torch._dynamo.utils import counters

    program = hotstart.compile(two, (torch.zeros(4),), dynamic_shapes={"x": {0: Dim("n", max=64)}})
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in range(1, 65):
            program(torch.zeros(size))
    assert not counters


@pytest.mark.thorough
def test_strides_that_are_a_choice_by_size() -> None:
    convolution = nn.Conv2d(3, 4, 3).eval()
    rows = {"input": {2: Dim("rows", min=3, max=16)}}
    program = hotstart.compile(convolution, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=rows)
    for size in (3, 4, 16):
        x = torch.randn(2, 3, size, 8)
        torch.testing.assert_close(program(x), convolution(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_the_square_root_of_a_size() -> None:
    def scaled(x: Tensor) -> Tensor:
        return x * math.sqrt(x.shape[0])

    program = hotstart.compile(
        scaled, (torch.zeros(4, 3),), dynamic_shapes={"x": {0: Dim("n", min=2, max=16)}}
    )
    for size in (2, 9, 16):
        x = torch.randn(size, 3)
        torch.testing.assert_close(program(x), scaled(x))


@pytest.mark.thorough
def test_an_input_with_an_offset_into_memory_as_large_as_another_axis() -> None:
    def row(x: Tensor) -> tuple[Tensor, Tensor]:
        second = torch.relu(x * 2)[1:2]
        return torch.relu(second.sin()), second

    program = hotstart.compile(
        row,
        (torch.zeros(4, 3),),
        dynamic_shapes={"x": {0: Dim("n", min=2, max=16)}},
        split_on=["operator.getitem"],
    )
    for size in (2, 9):
        x = torch.randn(size, 3)
        torch.testing.assert_close(program(x), row(x))
