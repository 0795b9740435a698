"""What Inductor compiles gives what eager gives: writes, views, dtypes, layouts, constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from tests.semantics import assert_same, check

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
BATCH = {0: Dim("batch", max=8)}
TWO_OR_MORE = {0: Dim("batch", min=2, max=8)}


@dataclass(frozen=True)
class Case:
    """A model or function, compiled for the first of its calls.

    Attributes:
        make: builds it.
        calls: the arguments of each call.
        dims: its dynamic dimensions.
        tolerance: relative and absolute.
    """

    make: Callable[[], Any]
    calls: Sequence[tuple[Tensor, ...]]
    dims: Mapping[str, Any] | None = None
    tolerance: float = 0.0


def add_to(state: Tensor, x: Tensor) -> Tensor:
    state.mul_(0.5).add_(x)
    return state * 2


def write_slice(cache: Tensor, x: Tensor) -> Tensor:
    cache[:, 1:3] = x
    return cache * 2


def write_beside_a_view(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x + 1
    first = y[:, :2]
    y.mul_(3)
    first.add_(1)
    return y, first


def views(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.view(-1), x[:, 1:], x.t()


def views_of_a_result(x: Tensor) -> tuple[Tensor, Tensor]:
    y = x * 2
    return y, y.view(-1)


def constants(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, 2.0, 3.0, float("inf")]) + torch.arange(4) - float("-inf")


def negated_and_doubled(*given: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(x.logical_not(), (x + x) * 2) for x in given]


def sum_of_rows(x: Tensor, scale: Tensor) -> Tensor:
    return (x * scale).sum(0)


class Counter(nn.Module):
    """Writes to one buffer and replaces another."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        self.total.add_(x.sum(0))
        return x + self.total / self.seen


class Autocast(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = super().forward(x)
        return y.float() + x


def images() -> list[tuple[Tensor, ...]]:
    """One image in every layout, that of the compile first."""
    x = R(3, 3, 8, 8)
    return [
        (x.to(memory_format=torch.channels_last),),
        (x,),
        (x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),),
        (R(3, 3, 8, 16)[..., ::2],),
        (R(3, 1, 8, 8).expand(3, 3, 8, 8),),
    ]


DTYPES = (
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool,
)  # fmt: skip

CASES = {
    "an argument is written": Case(
        lambda: add_to,
        [(R(n, 4), R(n, 4)) for n in (2, 1, 8)],
        {"state": BATCH, "x": BATCH},
    ),
    "a slice of an argument is written": Case(
        lambda: write_slice,
        [(R(n, 4), R(n, 2)) for n in (2, 1, 3, 8)],
        {"cache": BATCH, "x": BATCH},
    ),
    "an argument of another layout is written": Case(
        lambda: add_to, [(R(3, 4), R(3, 4)), (R(4, 3).t(), R(3, 4))]
    ),
    "a value is written beside its view": Case(
        lambda: write_beside_a_view,
        [(R(n, 4),) for n in (2, 1, 4)],
        {"x": BATCH},
    ),
    "buffers are written and replaced": Case(
        Counter, [(R(n, 4),) for n in (2, 1, 3, 8)], {"x": BATCH}
    ),
    "batch norm in training": Case(
        lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).train(),
        [(R(n, 4),) for n in (3, 2, 5, 8)],
        {"input": TWO_OR_MORE},
        tolerance=1e-4,
    ),
    "results view an argument": Case(lambda: views, [(R(n, 4),) for n in (2, 3)], {"x": BATCH}),
    "results view each other": Case(
        lambda: views_of_a_result, [(R(n, 4),) for n in (2, 5)], {"x": BATCH}
    ),
    "constants are made": Case(lambda: constants, [(R(n, 4),) for n in (2, 3)], {"x": BATCH}),
    "every dtype": Case(
        lambda: negated_and_doubled,
        [tuple((R(n, 4) * 3).to(dtype) for dtype in DTYPES) for n in (2, 3)],
        {"given": [BATCH] * len(DTYPES)},
    ),
    "there are no elements": Case(
        lambda: sum_of_rows,
        [(R(n, 4), torch.tensor(3.0)) for n in (2, 0, 1, 8)],
        {"x": {0: Dim("batch", min=0, max=8, sizes=[0])}},
        tolerance=1e-6,
    ),
    "layouts of a convolution": Case(
        lambda: nn.Conv2d(3, 5, 3), images(), {"input": BATCH}, tolerance=1e-4
    ),
    "autocast in forward": Case(
        lambda: Autocast(8, 8), [(R(n, 8),) for n in (2, 4)], {"x": BATCH}, tolerance=2e-2
    ),
    "a recurrent network": Case(
        lambda: nn.LSTM(4, 8, batch_first=True),
        [(R(n, 5, 4),) for n in (2, 3)],
        {"input": TWO_OR_MORE},
        tolerance=1e-4,
    ),
    "bags of embeddings": Case(
        lambda: nn.EmbeddingBag(16, 4, mode="sum"),
        [(torch.randint(0, 16, (n, 5)),) for n in (3, 4)],
        {"input": TWO_OR_MORE},
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_compiled_is_eager(case: Case) -> None:
    torch.manual_seed(0)
    program = check(
        case.make(),
        *case.calls,
        compiler="inductor",
        tolerance=case.tolerance,
        dynamic_shapes=case.dims,
    )
    assert program.report.op_by_op == ()


@pytest.mark.parametrize("assign", [False, True])
def test_weights_whose_memory_was_replaced_are_bound_again(assign: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).eval()
    options = hotstart.Options(
        pack_weights=False
    )  # what is packed has to be told of `.data` writes
    program = hotstart.compile(model, (torch.zeros(2, 8),), options=options)
    x = R(2, 8)
    assert_same(program(x), model(x), 1e-5)
    for parameter in model.parameters():
        if assign:  # the same object with the same shape, elsewhere
            parameter.data = torch.randn_like(parameter)
        else:
            parameter.data.normal_()
    assert_same(program(x), model(x), 1e-5)
    model[0].weight.data = model[0].weight.data.t()  # the same memory, read another way
    with pytest.raises(hotstart.ModelMismatch, match=r"0\.weight"):
        program(x)


@pytest.mark.thorough
def test_arithmetic_that_changes_nothing_still_makes_new_tensors() -> None:
    def copies(x: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(x)
        ones = torch.ones_like(x)
        return x * 1.0, x * ones, (x + 0).view(-1), (x * ones).expand(2, -1, -1), y, y * ones

    x = R(3, 4)
    program = check(copies, (x,), compiler="inductor", dynamic_shapes={"x": BATCH})
    assert program.report.op_by_op == ()
    found, expected = program(x), copies(x)
    assert [t.stride() for t in found] == [t.stride() for t in expected]
    assert len({t.untyped_storage().data_ptr() for t in (x, *found)}) == 7


def test_a_piece_of_which_nothing_is_left_to_compile() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(x.contiguous().detach())

    settings = {"dynamic_shapes": {"x": BATCH}, "split_on": ["aten::relu"]}
    program = check(model, (R(2, 4),), (R(3, 4),), compiler="inductor", **settings)
    assert program.report.op_by_op == ()
    assert [piece.kind for piece in program.pieces] == ["compiled", "inlined"]


@pytest.mark.thorough
def test_sums_in_tiles_write_no_further_than_the_rows_that_are_left() -> None:
    def f(x: Tensor) -> Tensor:
        v = x * 0.5 * (torch.erf(x) + 1)
        rows = nn.functional.pad(v.permute(3, 2, 1, 0), (0, 0, 0, 58), value=0.5)
        return nn.functional.pad(v, (0, 0, 0, 0, 0, 58), value=0.5) @ rows

    x = R(1, 8, 66, 66).contiguous(memory_format=torch.channels_last)
    program = check(f, (x,), compiler="inductor", tolerance=1e-4)
    assert program.report.op_by_op == ()


class Residual(nn.Module):
    """Blocks that write to the value that flows through them."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.up = nn.Linear(8, 16)
            self.down = nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            x += self.down(torch.relu(self.up(self.norm(x))))
            return x

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([self.Block() for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.0
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.thorough
def test_blocks_that_write_to_what_flows_through_them_are_reused() -> None:
    calls = [(R(n, 8),) for n in (2, 1, 8)]
    dims = {"x": BATCH}
    program = check(Residual(), *calls, compiler="inductor", tolerance=1e-5, dynamic_shapes=dims)
    assert program.report.op_by_op == ()
    assert program.report.reused >= 2


@pytest.mark.thorough
def test_a_program_built_under_autocast_is_called_under_autocast() -> None:
    linear = nn.Linear(8, 8).eval()
    x = R(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        settings = {"dynamic_shapes": {"input": BATCH}}
        program = check(linear, (x,), compiler="inductor", tolerance=2e-2, **settings)
        assert program(x).dtype is torch.bfloat16
    with pytest.raises(hotstart.ContractError, match="autocast"):
        program(x)


@torch.library.custom_op("hotstart_test::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return x * 2


@double.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("hotstart_test::bump", mutates_args=("x",))
def bump(x: Tensor) -> None:
    x.add_(1)


@pytest.mark.thorough
@pytest.mark.parametrize("split_on", ["auto", ["hotstart_test::double"], [double, bump]], ids=str)
def test_custom_operators_inside_a_piece_and_as_splitting_operators(split_on: Any) -> None:
    def f(x: Tensor) -> Tensor:
        y = double(x.sin())
        bump(y)
        return y.cos()

    settings = {"dynamic_shapes": {"x": BATCH}, "split_on": split_on}
    check(f, (R(2, 4),), (R(3, 4),), compiler="inductor", tolerance=1e-6, **settings)
