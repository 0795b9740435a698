"""Models that keep what they made for sizes of earlier calls: programs make it in every call."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.errors import CaptureError, ModelMismatch
from tests.semantics import assert_same, build

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn
EAGER = hotstart.Options(compiler="op_by_op")
LENGTHS = {"x": {1: Dim("t", max=16)}}
IMAGES = {"x": {2: Dim("h", min=2, max=12), 3: Dim("w", min=2, max=12)}}
TABLES: dict[str, Any] = {}


def calls_of(*lengths: int) -> dict[str, hotstart.Call]:
    return {f"of_{n}": hotstart.Call(args=(R(2, n),)) for n in lengths}


def ramp(length: int) -> Tensor:
    return torch.arange(length, dtype=torch.float32)


@pytest.fixture(autouse=True)
def _no_tables() -> None:
    TABLES.clear()


# --- what is left out ----------------------------------------------------------------------------


class InAttributes(nn.Module):
    """Rotary tables for the last length, in attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.rand(4))
        self.length: int | None = None
        self.tables: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.length != x.shape[1]:
            self.length = x.shape[1]
            angles = torch.outer(ramp(self.length), self.frequencies)
            self.tables = angles.cos().sum(-1), angles.sin().sum(-1)
        assert self.tables is not None
        return x * self.tables[0] + self.tables[1]


class InABuffer(nn.Module):
    """A causal mask for the last length, in a buffer, of the dtype of the argument."""

    mask: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self.mask is None or self.mask.shape[0] != length:
            self.mask = x.new_full((length, length), 2).triu(1)
        return x @ self.mask


class DependsOnData(InABuffer):
    """Gives as many results as are large."""

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found[found > 0]


class RegistersABuffer(nn.Module):
    length = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.length != x.shape[1]:
            self.length = x.shape[1]
            self.register_buffer("positions", ramp(self.length), persistent=False)
        return x + self.positions


class InAList(nn.Module):
    """Grids of a detection head, in a list of tensors that are empty at first."""

    def __init__(self) -> None:
        super().__init__()
        self.grids = [torch.zeros(1), torch.zeros(1)]

    def forward(self, x: Tensor) -> Tensor:
        for number, image in enumerate((x, x.mT)):
            rows, columns = image.shape[2:]
            if self.grids[number].shape[:2] != image.shape[2:]:
                grid = torch.meshgrid(ramp(rows), ramp(columns), indexing="ij")
                self.grids[number] = torch.stack(grid, -1)
        return x + self.grids[0].sum(-1) * self.grids[1][..., 1].mT


class ForAnImage(nn.Module):
    size: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.size != x.shape[2:]:
            self.size = x.shape[2:]
            self.ramp = torch.linspace(0, 1, self.size[0])[:, None] * ramp(self.size[1])
        return x * self.ramp


class InADict(nn.Module):
    """Keeps the last table in a dict, beside a setting and frequencies."""

    def __init__(self, scale: float = 2.0) -> None:
        super().__init__()
        self.state: dict[str, Any] = {"scale": scale, "rates": torch.ones(4), "table": None}

    def forward(self, x: Tensor) -> Tensor:
        state, length = self.state, x.shape[1]
        if state["table"] is None or len(state["table"]) != length:
            state["table"] = torch.outer(ramp(length), state["rates"]).sum(-1)
        return x * state["table"] * state["scale"]


class Positions:
    """An object that keeps the positions for the last length."""

    def __init__(self) -> None:
        self.length = -1
        self.made = ramp(0)

    def of(self, length: int) -> Tensor:
        if self.length != length:
            self.length, self.made = length, ramp(length)
        return self.made


class InAnObject(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = Positions()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions.of(x.shape[1])


class ClosesOverItself(InAttributes):
    """Has a function that leads to the module, and to nothing that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0
        self.scaled = lambda x: x * self.scale

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.scaled(super().forward(x))
        return scaled


class InAGlobal(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if TABLES.get("length") != x.shape[1]:
            TABLES.update(length=x.shape[1], ramp=ramp(x.shape[1]))
        return x + TABLES["ramp"]


class Twice(nn.Module):
    """Two parts that keep what they make each for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = InABuffer(), InAnObject()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


TEXTS = [R(2, n) for n in (5, 12, 1, 16)]
PICTURES = [R(1, 2, *size) for size in ((4, 6), (4, 3), (2, 2), (12, 6))]
LEFT_OUT = [
    (InAttributes, LENGTHS, TEXTS),
    (InABuffer, LENGTHS, TEXTS),
    *(
        pytest.param(cls, dims, inputs, marks=pytest.mark.thorough)
        for cls, dims, inputs in (
            (InAGlobal, LENGTHS, TEXTS),
            (ClosesOverItself, LENGTHS, TEXTS),
            (ForAnImage, IMAGES, PICTURES),
            (RegistersABuffer, LENGTHS, TEXTS),
            (DependsOnData, LENGTHS, TEXTS),
            (InAnObject, LENGTHS, TEXTS),
            (InADict, LENGTHS, TEXTS),
            (Twice, LENGTHS, TEXTS),
            (InAList, IMAGES, PICTURES),
        )
    ),
]


@pytest.mark.parametrize(("cls", "dims", "inputs"), LEFT_OUT)
def test_calls_equal_eager_in_any_order_and_leave_the_model_as_it_is(
    cls: type[nn.Module], dims: Any, inputs: list[Tensor]
) -> None:
    model = cls()
    before = {**vars(model), **model._buffers}
    program = build(model, inputs[0], dynamic_shapes=dims)
    with torch.no_grad():
        for x in (*inputs, *inputs):
            assert_same(program(x), cls.forward(model, x))  # the model keeps something by now
        model.__dict__.update(before)
    fresh = cls()
    fresh.load_state_dict(model.state_dict())
    for x in inputs:
        assert_same(program(x), fresh(x))


@pytest.mark.thorough
@pytest.mark.parametrize("cls", [InABuffer, InAttributes])
def test_a_model_that_was_called_before(cls: type[nn.Module]) -> None:
    model = cls()
    model(R(2, 5))
    program = build(model, R(2, 5), dynamic_shapes=LENGTHS)
    for length in (5, 12, 5, 16):
        x = R(2, length)
        assert_same(program(x), model(x))


@pytest.mark.parametrize(
    "cls",
    [
        InABuffer,
        pytest.param(InAttributes, marks=pytest.mark.thorough),
        pytest.param(InAnObject, marks=pytest.mark.thorough),
    ],
)
def test_files_fit_models_that_were_called_and_that_were_not(
    cls: type[nn.Module], tmp_path: Path
) -> None:
    model = cls()
    build(model, R(2, 5), dynamic_shapes=LENGTHS).save(tmp_path / "x.hot")
    called, fresh = cls(), cls()
    for other in (called, fresh):
        other.load_state_dict(model.state_dict())
    called(R(2, 7))
    for other in (called, fresh):
        program = hotstart.load(tmp_path / "x.hot", other)
        for length in (7, 5, 7):
            x = R(2, length)
            assert_same(program(x), model(x))


@pytest.mark.thorough
def test_the_log_names_what_a_program_does_not_keep(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hotstart"):
        build(InAttributes(), R(2, 5), dynamic_shapes=LENGTHS)
    assert "a program keeps nothing for later calls in length, tables" in caplog.text


@pytest.mark.thorough
def test_two_calls_of_one_program() -> None:
    model = InABuffer()
    program = hotstart.compile(model, calls=calls_of(16, 4), options=EAGER)
    for length in (4, 16, 4):
        x = R(2, length)
        assert_same(program(x), model(x))


@pytest.mark.thorough
def test_weights_that_are_replaced_count_in_the_next_call() -> None:
    model = InAttributes()
    program = build(model, R(2, 5), dynamic_shapes=LENGTHS)
    with torch.no_grad():
        model.frequencies.mul_(2)
        x = R(2, 9)
        assert_same(program(x), model(x))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("cls", "dims", "inputs"), [(InAttributes, LENGTHS, TEXTS), (InAList, IMAGES, PICTURES)]
)
def test_compiled_by_inductor(cls: type[nn.Module], dims: Any, inputs: list[Tensor]) -> None:
    model = cls()
    program = hotstart.compile(model, (inputs[0],), dynamic_shapes=dims)
    for x in (*inputs, *inputs):
        torch.testing.assert_close(program(x), model(x))


# --- what stays refused --------------------------------------------------------------------------


class ForgetsASize(nn.Module):
    rows = 0

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        if rows != self.rows:
            self.rows, self.total = rows, ramp(rows * columns).sum()
        return x + self.total


class Keeps(nn.Module):
    """Keeps positions for the last length, and does something more."""

    length: int | None = None

    def positions(self, x: Tensor) -> Tensor:
        if self.length != x.shape[1]:
            self.length, self.made = x.shape[1], ramp(x.shape[1])
            self.remade(x)
        return self.made

    def remade(self, x: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions(x)


class Largest(Keeps):
    largest = 0

    def forward(self, x: Tensor) -> Tensor:
        self.largest = max(self.largest, x.shape[1])
        return super().forward(x) * self.largest


class Counts(Keeps):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Lists(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.lengths.append(x.shape[1])
        return super().forward(x)


class Draws(Keeps):
    def remade(self, x: Tensor) -> None:
        self.made = torch.randn(x.shape[1])


class KeepsItsArgument(Keeps):
    def remade(self, x: Tensor) -> None:
        self.made = x * 2


class KeepsItsResult(Keeps):
    def forward(self, x: Tensor) -> Tensor:
        self.last = super().forward(x)
        return self.last


class Decays(Keeps):
    factor = 1.0

    def remade(self, x: Tensor) -> None:
        self.factor *= 0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.factor


class WritesABuffer(Keeps):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("times", torch.zeros(()))

    def remade(self, x: Tensor) -> None:
        self.times.add_(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.times


class KnowsHalf(Keeps):
    """Does something else at half of the last length."""

    half = -1

    def remade(self, x: Tensor) -> None:
        self.half = x.shape[1] // 2

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == self.half:
            x = x * 2
        return super().forward(x)


class KnowsTheNext(Keeps):
    def forward(self, x: Tensor) -> Tensor:
        if self.length is not None and x.shape[1] == self.length + 1:
            x = x * 2
        return super().forward(x)


class ByLength(nn.Module):
    """Keeps all lengths: what a dict does when it is full cannot be known."""

    def __init__(self) -> None:
        super().__init__()
        self.positions: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if length not in self.positions:
            self.positions[length] = ramp(length)
        return x + self.positions[length]


class CountsLengths(Keeps):
    """Does something else from the third length on."""

    lengths = 0

    def remade(self, x: Tensor) -> None:
        self.lengths += 1

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return found / 2 if self.lengths > 2 else found


class KnowsTheOneBefore(Keeps):
    before: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = self.before
        if x.shape[1] != self.length:
            self.before = self.length
        found = super().forward(x)
        return found / 2 if before else found


class InAClosure(nn.Module):
    """The code of a function is compared with what it closes over."""

    def __init__(self) -> None:
        super().__init__()
        kept: dict[str, Any] = {}

        def table(length: int) -> Tensor:
            if kept.get("length") != length:
                kept.update(length=length, table=ramp(length))
            found: Tensor = kept["table"]
            return found

        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(x.shape[1])


class KeyedByLess(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        key = x.shape[1] // 4
        if key not in self.made:
            self.made[key] = torch.tensor(float(x.shape[1]))
        return x + self.made[key]


class Scratch(nn.Module):
    space: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.space is None or self.space.shape != x.shape:
            self.space = torch.zeros(x.shape)
        self.space += x
        return self.space + 1


REFUSED = [
    Largest, Counts, Lists, Draws, KeepsItsArgument, KeepsItsResult, Decays, WritesABuffer,
    KnowsHalf, KnowsTheNext, KnowsTheOneBefore, CountsLengths, KeyedByLess, ByLength, InAClosure,
    Scratch,
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("cls", REFUSED)
def test_what_depends_on_earlier_calls_is_refused(cls: type[nn.Module]) -> None:
    model = cls()
    before = dict(vars(model))
    with pytest.raises(CaptureError, match=r"what was there before|Python state|Unsupported"):
        build(model, R(2, 5), dynamic_shapes=LENGTHS)
    assert vars(model) == before


class ByPixels(nn.Module):
    """Positions of pixels in a row, for another image of as many pixels too."""

    positions: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2:]
        if self.positions is None or len(self.positions) != rows * columns:
            self.positions = (ramp(rows)[:, None] * 10 + ramp(columns)).flatten()
        return x.flatten(2) + self.positions


@pytest.mark.parametrize("cls", [ForgetsASize, pytest.param(ByPixels, marks=pytest.mark.thorough)])
def test_a_key_that_leaves_out_a_size_is_refused(cls: type[nn.Module]) -> None:
    with pytest.raises(CaptureError, match="depends on what was there before"):
        build(cls(), R(1, 2, 4, 6), dynamic_shapes=IMAGES)


@pytest.mark.thorough
def test_what_lies_beside_a_memo_is_compared(tmp_path: Path) -> None:
    build(InADict(2.0), R(2, 5), dynamic_shapes=LENGTHS).save(tmp_path / "x.hot")
    with pytest.raises(ModelMismatch, match="scale"):
        hotstart.load(tmp_path / "x.hot", InADict(3.0))


@pytest.mark.thorough
def test_a_called_model_that_takes_no_larger_size_is_refused_with_what_to_do() -> None:
    class Bounded(InABuffer):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.embedding(torch.arange(x.shape[1])).T

    model = Bounded()
    build(model, R(2, 5), dynamic_shapes=LENGTHS)
    model(R(2, 5))
    with pytest.raises(CaptureError, match="Compile a model that was not called before"):
        build(model, R(2, 5), dynamic_shapes=LENGTHS)


@pytest.mark.thorough
def test_a_kept_tensor_that_a_graph_reads_is_refused_where_no_size_is_larger() -> None:
    model = InABuffer()
    model(R(2, 16))
    with pytest.raises(CaptureError, match=r"model\.mask"):
        hotstart.compile(model, calls=calls_of(16, 4), options=EAGER)
