"""A program gives what the model gives, and does to its inputs what the model does."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import ContractError, Dim
from tests.unit.programs import ANY, EAGER, Scale, build


def bound_functions(program: hotstart.Program) -> object:
    """The variants' functions with the weights they are bound to; the same until weights change."""
    return program._binding()


# --- layouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: x[:, :1].expand(4, 4),
        lambda x: torch.cat([x, x], 1)[:, ::2],
        lambda x: torch.cat([x, x])[::2],
    ],
    ids=["transposed", "expanded", "columns", "rows"],
)
def test_any_strides_give_the_right_result(change: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = Scale().eval()
    program = build(model, torch.randn(4, 4), dynamic_shapes={"x": {0: ANY}})
    x = change(torch.randn(4, 4))
    assert not x.is_contiguous()
    with caplog.at_level(logging.WARNING, "hotstart"):
        for _ in range(3):
            assert torch.equal(program(x), model(x))
    assert program.relayouts == {"x": 3}
    assert len([r for r in caplog.records if "strides" in r.message]) == 1


def test_compiled_layouts_are_not_copied() -> None:
    def model(x):
        return x * 2

    for example in (
        torch.randn(2, 3, 4, 5),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(5, 4, 3, 2).permute(3, 2, 1, 0),
    ):
        dims = {"x": {0: Dim("a", min=1, max=8), 2: Dim("b", min=1, max=8)}}
        program = build(model, example, dynamic_shapes=dims)
        assert torch.equal(program(example), example * 2)
        assert program.relayouts == {}
        # Strides of dimensions of size one, and of tensors without elements, mean nothing.
        one = example[:1, :, :1].clone(memory_format=torch.preserve_format)
        assert torch.equal(program(one), one * 2)
        assert program.relayouts == {}
        other = torch.randn(3, 3, 2, 5).transpose(0, 1).contiguous().transpose(0, 1)
        assert torch.equal(program(other), other * 2)
        assert program.relayouts == {"x": 1}


def test_a_call_that_does_not_fit_copies_nothing() -> None:
    def model(x, y):
        x.add_(1)
        return x + y

    options = hotstart.Options(compiler="op_by_op", on_miss="eager")
    program = build(model, torch.randn(3, 3), torch.randn(3, 3), options=options)
    x = torch.zeros(3, 3).t()
    program(x, torch.zeros(3, 3, dtype=torch.float64))
    assert torch.equal(x, torch.ones(3, 3))
    assert program.relayouts == {}


# --- autograd -------------------------------------------------------------------------------------


def test_results_never_require_grad_and_grad_mode_is_left_alone() -> None:
    program = build(Scale().eval(), torch.randn(2, 4))
    x = torch.randn(2, 4, requires_grad=True)
    assert not program(x).requires_grad
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert not program(x).requires_grad
        assert not torch.is_grad_enabled()


def test_grad_mode_is_restored_after_an_error() -> None:
    def model(x, index):
        return x[index]

    program = build(model, torch.randn(3), torch.tensor([0]))
    with pytest.raises(IndexError):
        program(torch.randn(3), torch.tensor([7]))
    assert torch.is_grad_enabled()
    assert program(torch.ones(3), torch.tensor([1])) == 1


def test_inference_mode_and_no_grad_may_alternate() -> None:
    model = Scale().eval()
    program = build(model, torch.randn(2, 4))
    x = torch.randn(2, 4)
    expected = model(x).detach()
    program(x)
    bound = bound_functions(program)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad) * 2:
        with mode():
            assert torch.equal(program(x), expected)
            assert bound_functions(program) is bound  # nothing was fetched again
    with torch.inference_mode():
        inside = torch.randn(2, 4)
    assert torch.equal(program(inside), torch.relu(inside * model.weight.detach()))


# --- mutation -------------------------------------------------------------------------------------


def mutating(x, y):
    x.add_(1)
    y[0] = 5
    return x * y


@pytest.mark.parametrize("transpose", [False, True])
def test_inputs_are_changed_as_the_model_changes_them(transpose: bool) -> None:
    program = build(mutating, torch.randn(3, 3), torch.randn(3, 3))
    left = [torch.arange(9.0).reshape(3, 3).clone() for _ in range(2)]
    right = [t.clone() for t in left]
    if transpose:
        left, right = [t.t() for t in left], [t.t() for t in right]
    assert torch.equal(program(*left), mutating(*right))
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_changed_inputs_must_not_share_memory() -> None:
    program = build(mutating, torch.randn(3, 3), torch.randn(3, 3))
    base = torch.randn(6, 3)
    for x, y in [(base[:3], base[:3]), (base[:3], base[3:]), (base[1:4], base[2:5])]:
        before = base.clone()
        with pytest.raises(ContractError, match=r"shares memory.*\.clone\(\)"):
            program(x, y)
        assert torch.equal(base, before)


def test_an_argument_that_is_returned_is_the_callers_own() -> None:
    def model(x, y):
        x.mul_(2)
        return x, y, y + 1

    program = build(model, torch.randn(2, 2), torch.randn(2, 2))
    x, y = torch.ones(2, 2).t(), torch.arange(4.0).reshape(2, 2).t()
    first, second, _ = program(x, y)
    assert first is x
    assert second is y
    assert torch.equal(x, torch.full((2, 2), 2.0))


@pytest.mark.parametrize("training", [False, True])
def test_buffers_are_updated(training: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.norm(x)

    torch.manual_seed(0)
    model, reference = Model().train(training), Model().train(training)
    program = build(model, torch.randn(8, 4))
    for _ in range(3):
        x = torch.randn(8, 4)
        assert torch.equal(program(x), reference(x).detach())
    for (name, ours), (_, theirs) in zip(
        model.state_dict().items(), reference.state_dict().items(), strict=True
    ):
        assert torch.equal(ours, theirs), name


# --- threads --------------------------------------------------------------------------------------


def test_many_threads_may_call_while_weights_are_replaced() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.linear.weight.data.zero_()
            self.linear.bias.data.fill_(1.0)

        def forward(self, x):
            return self.linear(x) + self.linear.bias

    model = Model().eval()
    program = build(model, torch.randn(2, 8), dynamic_shapes={"x": {0: ANY}})
    problems: list[object] = []
    done = threading.Event()

    def call(size: int) -> None:
        x = torch.zeros(size, 8)
        try:
            while not done.is_set():
                result = program(x)
                value = float(result[0, 0])
                # One set of weights for all of a call: both biases are of the same one.
                if result.shape != (size, 8) or value % 2 or not (result == value).all():
                    problems.append(result)
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=call, args=(size,)) for size in (1, 2, 5, 16)]
    for thread in threads:
        thread.start()
    for step in range(200):
        state = {"weight": torch.zeros(8, 8), "bias": torch.full((8,), float(step))}
        if step % 2:
            model.linear.load_state_dict(state, assign=True)
        else:
            replaced = nn.Linear(8, 8)
            replaced.load_state_dict(state)
            model.linear = replaced
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert program(torch.zeros(1, 8))[0, 0] == 2 * 199


def test_a_program_may_be_called_inside_itself() -> None:
    def model(x):
        return x + 1

    program = build(model, torch.randn(3), dynamic_shapes={"x": {0: ANY}})
    assert program(program(program(torch.zeros(2)))).tolist() == [3, 3]


def test_repr_says_what_it_is() -> None:
    text = repr(build(Scale().eval(), torch.randn(2, 4), dynamic_shapes={"x": {0: ANY}}))
    assert "Scale" in text
    assert "inference only" in text
    assert "n=1..16" in text


def test_an_argument_that_is_written_and_returned_is_itself_whatever_its_strides() -> None:
    def bump(x: Tensor) -> Tensor:
        x += 1
        return x

    program = hotstart.compile(bump, (torch.zeros(3, 4),), options=EAGER)
    for given in (torch.zeros(3, 4), torch.zeros(4, 3).t()):
        assert program(given) is given
        assert torch.equal(given, torch.ones(3, 4))


def test_a_tensor_as_default_is_a_constant_of_the_contract() -> None:
    ones = torch.ones(2)

    def scaled(x: Tensor, by: Tensor = ones) -> Tensor:
        return x * by

    program = hotstart.compile(scaled, (torch.full((2,), 3.0),), options=EAGER)
    assert torch.equal(program(torch.full((2,), 3.0)), torch.full((2,), 3.0))
    with pytest.raises(hotstart.ContractError, match="by"):
        program(torch.zeros(2), torch.zeros(2))


def test_what_is_written_to_an_image_of_one_channel_is_written_to_the_callers() -> None:
    def add(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x.add_(1)
        return x * 2, x

    x = torch.randn(2, 1, 4, 4)
    options = hotstart.Options(compiler="op_by_op")
    program = hotstart.compile(add, (x.clone(),), options=options)
    last = x.as_strided(x.shape, (16, 1, 4, 1)).clone(memory_format=torch.preserve_format)
    doubled, returned = program(last)
    assert returned is last
    assert torch.equal(last, x + 1)
    assert torch.equal(doubled, last * 2)
