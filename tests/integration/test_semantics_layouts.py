"""Strides of arguments and weights, ties, and tensors that are constants."""

from __future__ import annotations

import logging.handlers
import queue
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from tests.semantics import assert_same, both, build, check, mostly_eager

pytestmark = pytest.mark.usefixtures("kept_pieces")

R = torch.randn


# --- strides -------------------------------------------------------------------------------------


@both
def test_arguments_of_any_strides(compiler: str) -> None:
    def f(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x * 2, x.sum(0), x.t() + 1

    given = [R(4, 6), R(6, 4).t(), R(4, 1).expand(4, 6), R(4, 12)[:, ::2], R(5, 6)[1:]]
    program = build(f, given[0], compiler=compiler)
    transposed = build(f, given[1], compiler=compiler)
    for x in given:
        assert_same(program(x), f(x), 1e-6)
        assert_same(transposed(x), f(x), 1e-6)


def test_layouts_that_an_operator_does_not_take_are_tried_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    monkeypatch.setattr(logger, "handlers", [logging.handlers.QueueHandler(said)])

    def rotated(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * 1j).flatten(-2)

    check(rotated, (R(2, 5, 8),), dynamic_shapes={"x": {1: hotstart.Dim("steps", max=16)}})
    assert said.empty()


@mostly_eager
def test_weights_of_any_strides(compiler: str) -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("expanded", R(1, 4).expand(3, 4))
            self.register_buffer("transposed", R(4, 3).t())
            self.register_buffer("gaps", R(3, 8)[:, ::2])
            self.register_buffer("later", R(5, 4)[2:])

        def forward(self, x: Tensor) -> Tensor:
            return x + self.expanded + self.transposed * self.gaps @ self.later.t() @ x

    check(Strided(), (R(3, 4),), compiler=compiler, tolerance=1e-5)


@pytest.mark.parametrize(
    ("make", "shape", "layout"),
    [
        (lambda: nn.Conv2d(3, 4, 3), (2, 3, 8, 8), torch.channels_last),
        (lambda: nn.Conv3d(3, 4, 3), (2, 3, 5, 5, 5), torch.channels_last_3d),
    ],
)
@mostly_eager
def test_channels_last(make: Any, shape: Any, layout: Any, compiler: str) -> None:
    model = nn.Sequential(make(), nn.ReLU()).to(memory_format=layout)
    x = R(shape)
    calls = [(x.contiguous(memory_format=layout),), (x,)]
    program = check(model, *calls, compiler=compiler, tolerance=1e-5)
    assert program(*calls[0]).is_contiguous(memory_format=layout)
    assert program.relayouts == {"input": 2}  # the two calls with another layout


# --- layouts that forward reads -------------------------------------------------------------------


def _reshaped_and_written(x: Tensor) -> Tensor:
    y = x.clone()
    y.reshape(-1).mul_(torch.arange(12.0))
    return y


READS_LAYOUT: dict[str, Any] = {
    "is_contiguous": lambda x: x * 2 if x.is_contiguous() else x * 3,
    "of a format": lambda x: (
        x * 2 if x.is_contiguous(memory_format=torch.contiguous_format) else x * 3
    ),
    "by the class": lambda x: x * 2 if torch.Tensor.is_contiguous(x) else x * 3,
    "strides": lambda x: x * x.stride()[0],
    "a stride": lambda x: x * x.stride(0),
    "dim_order": lambda x: x * (x.dim_order()[0] + 2),
    "sym_stride": lambda x: x * torch.ops.aten.sym_stride.int(x, 0),
    "of a view": lambda x: x * 2 if x.t().is_contiguous() else x * 3,
    "of data": lambda x: x * 2 if x.data.is_contiguous() else x * 3,
    "of a result": lambda x: x * (x + 1).stride(0),
    "of a copy": lambda x: x * 2 if x.clone().is_contiguous() else x * 3,
    "of what is made like it": lambda x: x * torch.ones_like(x).stride(1),
    "identity": lambda x: x * 2 if x.contiguous() is x else x * 3,
    "no identity": lambda x: x * 2 if x.contiguous() is not x else x * 3,
    "as_strided": lambda x: x.as_strided((12,), (1,)) * 1,
    "as_strided of a result": lambda x: (x + 1).as_strided((12,), (1,)),
    "a view of all": lambda x: x.view(-1) * 2,
    "a view of a result": lambda x: (x + 1).view(12),
    "a write to a reshape": _reshaped_and_written,
    "a write to an argument": lambda x: (x.reshape(-1).mul_(2), x + 1)[1],
    "returned if contiguous": lambda x: x.contiguous(),
}


@pytest.mark.parametrize("case", READS_LAYOUT)
def test_a_layout_that_is_read_is_part_of_the_contract(case: str) -> None:
    f = READS_LAYOUT[case]
    program = build(f, R(3, 4))
    x, transposed = R(3, 4), R(4, 3).t()
    assert_same(program(x.clone()), f(x.clone()))
    later = R(6, 4)[3:]
    assert_same(program(later.clone()), f(later.clone()))
    for other in (transposed, R(4, 6).t()[3:]):
        with pytest.raises(hotstart.ContractError, match=r"x: got strides \(1, .*takes strides"):
            program(other)
    assert program.relayouts == {}


def test_the_advice_of_a_refused_layout_helps() -> None:
    f = READS_LAYOUT["strides"]
    program = build(f, R(3, 4))
    narrow = R(3, 8)[:, ::2]
    with pytest.raises(hotstart.ContractError, match=r"x\.clone\(memory_format=torch\.cont"):
        program(narrow)
    again = narrow.clone(memory_format=torch.contiguous_format)
    assert_same(program(again), f(again))
    # Of size 1, contiguous in any strides, and strides are numbers nevertheless.
    program = build(f, R(1, 4))
    odd = R(8).as_strided((1, 4), (7, 1))
    with pytest.raises(hotstart.ContractError, match=r"strides \(7, 1\), takes strides \(4, 1\)"):
        program(odd)
    again = odd.clone(memory_format=torch.contiguous_format)
    assert_same(program(again), f(again))


def test_a_dimension_of_one_matters_only_where_its_stride_is_a_number() -> None:
    f = READS_LAYOUT["is_contiguous"]
    odd = R(8).as_strided((1, 4), (7, 1))
    assert_same(build(f, R(1, 4))(odd), f(odd))


def test_channels_last_is_read() -> None:
    def f(x: Tensor) -> Tensor:
        y = x + 1
        return y * 2 if y.is_contiguous(memory_format=torch.channels_last) else y * 3

    x = R(2, 3, 4, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    for example, other in ((x, last), (last, x)):
        program = build(f, example)
        assert_same(program(example), f(example))
        with pytest.raises(hotstart.ContractError, match="x: got strides"):
            program(other)
    with pytest.raises(hotstart.ContractError, match=r"clone\(memory_format=torch\.channels_last"):
        build(f, last)(x)


def test_only_the_arguments_that_are_read_are_fixed() -> None:
    def f(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        return x * 2 + z if (y.t() * 2).is_contiguous() else x * 3

    program = build(f, R(3, 4), R(4, 4), R(3, 4))
    other = R(4, 3).t()
    y = R(4, 4)
    assert_same(program(other, y, other), f(other, y, other))
    with pytest.raises(hotstart.ContractError, match="y: got strides"):
        program(other, y.t(), other)


def test_a_read_that_no_layout_reaches_fixes_nothing() -> None:
    class Embeds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, ids: Tensor) -> Tensor:
            x = self.table(ids)
            assert x.is_contiguous()
            return x.view(-1, 4) * x.stride(0)

    model = Embeds()
    program = build(model, torch.zeros(2, 3, dtype=torch.long))
    ids = torch.randint(0, 9, (2, 8))[:, :3]
    with torch.no_grad():
        assert_same(program(ids), model(ids))


def test_layouts_that_matter_together() -> None:
    def f(x: Tensor, y: Tensor) -> Tensor:
        z = torch.cat([x, y], 1)
        return z * 2 if z.is_contiguous(memory_format=torch.channels_last) else z * 3

    x = R(2, 3, 4, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    program = build(f, x, x)
    assert_same(program(x, x), f(x, x))
    try:
        found = program(last, last)
    except hotstart.ContractError:
        return
    assert_same(found, f(last, last))


def test_layouts_at_dynamic_sizes() -> None:
    def f(x: Tensor) -> Tensor:
        y = x.transpose(0, 1) * 2
        return y + 1 if y.is_contiguous() else y * y.stride(1)

    batch = hotstart.Dim("batch", min=1, max=8)
    program = build(f, R(1, 4, 3), dynamic_shapes={"x": {0: batch}})
    for size in (1, 2, 8):
        x = R(size, 4, 3)
        assert_same(program(x), f(x))
        with pytest.raises(hotstart.ContractError, match="x: got strides"):
            program(R(4, size, 6).transpose(0, 1)[:, :, :3])


def test_an_example_with_gaps_is_refused_where_strides_are_read() -> None:
    f = READS_LAYOUT["strides"]
    for example in (R(3, 8)[:, ::2], R(3, 1).expand(3, 4), R(8, 4)[::2]):
        with pytest.raises(hotstart.CaptureError, match=r"x: .*layout(.|\n)*expected(.|\n)*do: "):
            build(f, example)
    assert_same(build(f, R(6, 4)[3:])(torch.ones(3, 4)), torch.ones(3, 4) * 4)


@torch.library.custom_op("layouts::reads", mutates_args=())
def _reads(x: Tensor) -> Tensor:
    return x * x.stride(0)


@torch.library.custom_op("layouts::reads_none", mutates_args=(), tags=(torch.Tag.flexible_layout,))
def _reads_none(x: Tensor) -> Tensor:
    return x * 2


@_reads.register_fake
@_reads_none.register_fake
def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def test_an_operator_of_the_users_may_read_strides() -> None:
    program = build(lambda x: torch.ops.layouts.reads(x + 1), R(3, 4))
    assert_same(program(torch.ones(3, 4)), torch.ones(3, 4) * 8)
    with pytest.raises(hotstart.ContractError, match="x: got strides"):
        program(R(4, 3).t())
    program = build(lambda x: torch.ops.layouts.reads_none(x + 1), R(3, 4))
    assert_same(program(torch.ones(4, 3).t()), torch.ones(3, 4) * 4)


def test_a_read_inside_of_a_branch_counts() -> None:
    def f(x: Tensor) -> Tensor:
        def yes(x: Tensor) -> Tensor:
            return x * 2 if x.is_contiguous() else x * 3

        return torch.cond(x.sum() > 0, yes, lambda x: x - 1, (x,))

    program = build(f, R(3, 4))
    x = torch.ones(3, 4)
    assert_same(program(x), f(x))
    with pytest.raises(hotstart.ContractError, match="x: got strides"):
        program(torch.ones(4, 3).t())


def test_calls_that_miss_by_layout_run_as_on_miss_says() -> None:
    f = READS_LAYOUT["is_contiguous"]
    x, other = R(3, 4), R(4, 3).t()
    for policy in ("eager", "compile"):
        options = hotstart.Options(compiler="op_by_op", on_miss=policy)
        program = hotstart.compile(f, (x,), options=options)
        for given in (x, other, x, other):
            assert_same(program(given), f(given))


def test_calls_of_one_program_differ_by_layout() -> None:
    f = READS_LAYOUT["is_contiguous"]
    x, other = R(3, 4), R(4, 3).t()
    options = hotstart.Options(compiler="op_by_op")
    calls = {"rows": hotstart.Call(args=(x,)), "columns": hotstart.Call(args=(other,))}
    program = hotstart.compile(f, calls=calls, options=options)
    for given in (x, other):
        assert_same(program(given), f(given))
    with pytest.raises(hotstart.ContractError, match="x: got strides"):
        program["rows"](other)


def test_the_layout_is_kept_in_a_file_and_in_place_of_a_method(tmp_path: Any) -> None:
    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return READS_LAYOUT["is_contiguous"](x)

    module = Reads()
    other = R(4, 3).t()
    build(module, R(3, 4)).save(tmp_path / "a.hot", check=False)
    program = hotstart.load(tmp_path / "a.hot", module)
    with pytest.raises(hotstart.ContractError, match="x: got strides"):
        program(other)
    model = nn.Sequential(module)
    options = hotstart.Options(compiler="op_by_op")
    hotstart.compile_submodule(model, "0", (R(3, 4),), options=options)
    with pytest.raises(hotstart.ContractError, match="x: got strides"):
        model(other)
    hotstart.restore(module)


def test_asking_for_the_base_of_a_view_is_refused() -> None:
    with pytest.raises(hotstart.CaptureError, match="_base"):
        build(lambda x: x * 2 if x._base is None else x * 3, R(3, 4))


@mostly_eager
def test_one_tensor_as_two_arguments(compiler: str) -> None:
    def f(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x + y, x @ y.t()

    x, y = R(3, 4), R(3, 4)
    apart, same = (build(f, x, other, compiler=compiler) for other in (y, x))
    for program in (apart, same):
        assert_same(program(x, x), f(x, x), 1e-5)
        assert_same(program(x, y), f(x, y), 1e-5)


# --- ties and constants --------------------------------------------------------------------------


@mostly_eager
def test_tied_weights(compiler: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(10, 4)
            self.head = nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    model = Tied()
    program = check(model, (torch.randint(0, 10, (2, 3)),), compiler=compiler, tolerance=1e-5)
    (spec,) = program.artifact.requirements.weights
    assert {spec.name, *spec.ties} == {"embed.weight", "head.weight"}


GLOBAL = R(4)


class Constants(nn.Module):
    """Keeps tensors in every place Python has."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = R(4)
        self.listed = [R(4), R(4)]
        self.mapped = {"a": R(4)}
        self.number = 3.5
        self.array = np.arange(4, dtype=np.float32)
        closed = R(4)
        self.function = lambda x: x + closed

    def forward(self, x: Tensor) -> Tensor:
        made = torch.tensor([1.0, 2.0, 3.0, 4.0]) + torch.full((4,), 2.0) + torch.arange(4)
        kept = self.plain + self.listed[1] + self.mapped["a"] * self.number + GLOBAL
        return self.function(x) + kept * made + torch.from_numpy(self.array)


@mostly_eager
def test_tensors_that_no_module_registers(compiler: str) -> None:
    model = Constants()
    program = check(model, (R(3, 4),), compiler=compiler, tolerance=1e-5, reference=model)
    x = R(3, 4)
    model.plain = R(4)  # an attribute is looked up again
    model.listed[1].add_(1)  # the same tensor with other contents
    assert_same(program(x), model(x), 1e-5)


def test_a_tensor_in_a_list_is_the_one_of_the_build() -> None:
    model = Constants()
    program = build(model, R(3, 4))
    x = R(3, 4)
    before, tensor = model(x), model.listed[1]
    assert_same(program(x), before, 1e-5)
    model.listed[1] = tensor.clone()  # another of the same contents
    assert_same(program(x), before, 1e-5)
    model.listed[1] = R(4)
    with pytest.raises(hotstart.ModelMismatch, match=r"listed\[1\]"):
        program(x)
    model.listed[1] = tensor
    assert_same(program(x), before, 1e-5)


def test_numbers_are_part_of_the_contract() -> None:
    program = build(lambda x, n: x * n, R(3), np.float64(2))
    assert_same(program(torch.ones(3), np.float64(2)), torch.ones(3) * 2)
    with pytest.raises(hotstart.ContractError, match="n: got"):
        program(torch.ones(3), np.float64(3))
