"""A call that the contract does not take does what `on_miss` says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hotstart
from hotstart import ContractError
from hotstart.events import Event
from tests.unit.programs import Scale, build


def double(x, flag=False):
    return x + 2 if flag else x * 2


def test_nothing_is_compiled_in_a_call() -> None:
    events: list[Event] = []
    options = hotstart.Options(compiler="op_by_op", on_event=events.append)
    program = build(double, torch.randn(3), options=options)
    assert events
    events.clear()
    program(torch.randn(3))
    with pytest.raises(ContractError):
        program(torch.randn(4))
    assert not events


def test_on_miss_eager_runs_the_model_without_autograd() -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss="eager")
    model = Scale().eval()
    program = build(model, torch.randn(2, 4), options=options)
    x = torch.randn(3, 4, requires_grad=True)
    result = program(x)
    assert torch.equal(result, model(x))
    assert not result.requires_grad
    with pytest.raises(TypeError):  # the model's own error
        program()


def test_on_miss_eager_passes_what_the_call_passed() -> None:
    def model(x, /, y, *rest, flag=False, **more):
        return [x, y, *rest, *more.values()] if flag else x + y

    options = hotstart.Options(compiler="op_by_op", on_miss="eager")
    a, b, c, d = torch.randn(4, 2)
    program = build(model, a, b, options=options)
    assert program(a, b, c, flag=True, more=d) == [a, b, c, d]
    assert program(a, y=b, flag=True, more=c) == [a, b, c]


def test_on_miss_compile_builds_once_for_each_new_kind_of_call() -> None:
    events: list[Any] = []
    options = hotstart.Options(compiler="op_by_op", on_miss="compile", on_event=events.append)
    program = build(double, torch.randn(3), options=options)
    built = len(events)
    assert torch.equal(program(torch.ones(3)), torch.full((3,), 2.0))
    assert len(events) == built
    for _ in range(2):
        assert torch.equal(program(torch.ones(4), flag=True), torch.full((4,), 3.0))
        assert len(events) > built
        built_again = len(events)
        assert torch.equal(program(torch.ones(4), flag=True), torch.full((4,), 3.0))
        assert len(events) == built_again


def test_sizes_that_vary_among_missed_calls_are_compiled_as_ranges() -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss="compile")
    program = build(double, torch.randn(3), options=options)
    for size in (4, 6, 5, 8, 7, 9, 16, 12, 4):
        assert torch.equal(program(torch.ones(size)), torch.full((size,), 2.0))
        assert torch.equal(program(torch.ones(size), flag=True), torch.full((size,), 3.0))
    # 4 alone, 4 to 8, then 4 to 16; the same with the other constant.
    assert len(program._misses.compiled[""]) == 6


@pytest.mark.thorough
def test_a_file_that_is_loaded_compiles_missed_sizes_as_ranges(tmp_path: Path) -> None:
    build(double, torch.randn(3)).save(tmp_path / "double.hot")
    program = hotstart.load(tmp_path / "double.hot", double, on_miss="compile")
    for size in (4, 6, 5):
        assert torch.equal(program(torch.ones(size)), torch.full((size,), 2.0))
    assert len(program._misses.compiled[""]) == 2


def test_missed_sizes_that_are_no_range_are_compiled_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def model(x):
        return x * [0, 1, 1, 2, 3, 5, 8][x.shape[0]]

    options = hotstart.Options(compiler="op_by_op", on_miss="compile", splits=0)
    program = build(model, torch.randn(1), options=options)
    for size in (2, 4, 6, 5, 2):
        x = torch.randn(size)
        assert torch.equal(program(x), model(x))
    assert len(program._misses.compiled[""]) == 4
    assert sum("sizes alone" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.thorough
def test_missed_sizes_that_follow_from_others_are_compiled_so() -> None:
    def model(new, past, mask):
        return torch.cat([past, new]) * mask

    def args(past, new):
        return torch.randn(new), torch.randn(past), torch.randn(past + new)

    options = hotstart.Options(compiler="op_by_op", on_miss="compile")
    program = build(model, *args(2, 2), options=options)
    for past, new in ((4, 2), (6, 2), (8, 2), (8, 3), (5, 4), (7, 2)):
        given = args(past, new)
        assert torch.equal(program(*given), model(*given))
    # (4, 2) alone, then 4..8 and 2, then 4..8 and 2..4
    assert len(program._misses.compiled[""]) == 3


@pytest.mark.thorough
def test_a_call_that_the_model_refuses_says_nothing_of_others() -> None:
    def model(x, scale):
        return torch.cat([part * scale for part in x.chunk(2)])

    options = hotstart.Options(compiler="op_by_op", on_miss="compile")
    program = build(model, torch.randn(2), torch.randn(1), options=options)
    with pytest.raises(hotstart.HotstartError):
        program(torch.randn(6), torch.randn(2))
    for size in (2, 3, 4):
        given = torch.randn(2 * size), torch.randn(size)
        assert torch.equal(program(*given), model(*given))
    assert len(program._misses.compiled[""]) == 2


class CachesBySize(nn.Module):
    """Keeps a table that grows with what it is called with, as rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(8.0)[:, None])

    def forward(self, x):
        if x.shape[1] > self.table.shape[0]:
            self.table = torch.arange(float(x.shape[1]))[:, None]
        return x * self.table[: x.shape[1]]


class Remembers(nn.Module):
    """What a call gives depends on the size of the one before, and on how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.zeros(8)
        self.register_buffer("calls", torch.tensor(0.0))

    def forward(self, x):
        before = self.last
        self.last = torch.ones(x.shape[1]) * before.numel()
        self.calls += 1
        return x + before.mean() + self.calls


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "policy"), [(CachesBySize, "eager"), (CachesBySize, "compile"), (Remembers, "eager")]
)
def test_calls_after_a_miss_that_changed_the_model_are_those_of_eager(
    kind: type[nn.Module], policy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss=policy)
    model, reference = kind(), kind()
    program = build(model, torch.randn(2, 8, 4), options=options)
    for size in (8, 12, 8, 12, 10, 8, 8):
        x = torch.randn(2, size, 4)
        assert torch.equal(program(x), reference(x)), size
    told = [r for r in caplog.records if "changed the model" in r.getMessage()]
    assert len(told) == 1
    assert "largest sizes" in told[0].getMessage()
    assert "expected torch.float32 [8" in told[0].getMessage()


def test_on_miss_compile_refuses_a_model_that_depends_on_the_size_of_its_last_call() -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss="compile")
    model, reference = Remembers(), Remembers()
    program = build(model, torch.randn(2, 8, 4), options=options)
    with pytest.raises(hotstart.CaptureError, match=r"forward sets the model\.last"):
        program(torch.randn(2, 12, 4))
    x = torch.randn(2, 8, 4)
    assert torch.equal(program(x), reference(x))  # the refused call changed nothing


def test_a_program_is_used_again_once_the_model_fits() -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss="eager")
    model = CachesBySize()
    program = build(model, torch.randn(2, 8, 4), options=options)
    table = model.table
    program(torch.randn(2, 12, 4))
    model.table = table
    forward, ran = CachesBySize.forward.__code__, []
    sys.setprofile(lambda frame, *_: ran.append(1) if frame.f_code is forward else None)
    try:
        program(torch.randn(2, 8, 4))
    finally:
        sys.setprofile(None)
    assert not ran


def test_a_named_call_after_a_miss_that_changed_the_model_is_that_of_eager() -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss="eager")
    model, reference = CachesBySize(), CachesBySize()
    calls = {"table": hotstart.Call(args=(torch.randn(2, 8, 4),))}
    program = hotstart.compile(model, calls=calls, options=options)
    for size in (8, 12, 8):
        x = torch.randn(2, size, 4)
        assert torch.equal(program["table"](x), reference(x))


@pytest.mark.parametrize("policy", ["eager", "error"])
def test_a_model_that_its_user_changed_is_a_mismatch(policy: Any) -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss=policy)
    model = CachesBySize()
    program = build(model, torch.randn(2, 8, 4), options=options)
    model(torch.randn(2, 12, 4))
    with pytest.raises(hotstart.ModelMismatch, match=r"table: expected .* \[8, 1\].*\n.*Restore"):
        program(torch.randn(2, 8, 4))


def test_on_miss_compile_gives_up_on_what_no_program_takes() -> None:
    def model(x, y):
        x.add_(1)
        return x + y

    options = hotstart.Options(compiler="op_by_op", on_miss="compile")
    program = build(model, torch.randn(3), torch.randn(3), options=options)
    x = torch.randn(3)
    with pytest.raises(ContractError, match="shares memory"):
        program(x, x)


class Dropping(nn.Module):
    """Does something else where a module in it is in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = self.inner(x)
        return y * 3 if self.drop.training else y


@pytest.mark.parametrize("of", [lambda model: model, lambda model: model.drop], ids=["all", "one"])
@pytest.mark.parametrize("policy", ["eager", "compile"])
def test_a_module_in_another_mode_is_a_miss(policy: Any, of: Any) -> None:
    options = hotstart.Options(compiler="op_by_op", on_miss=policy)
    model, x = Dropping().eval(), torch.randn(2, 4)
    program = build(model, x, options=options)
    of(model).train()
    assert torch.equal(program(x), model(x))
    of(model).eval()
    assert torch.equal(program(x), model(x))
