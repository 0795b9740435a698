"""A program gives what the model gives, and does to its inputs what the model does."""

from __future__ import annotations

import collections
import dataclasses
import logging
import sys
import threading
from typing import Any, NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

import hotstart
from hotstart import ContractError, Dim
from hotstart.events import Event

EAGER = hotstart.Options(compiler="op_by_op")
ANY = Dim("n", min=1, max=16)


def build(model: Any, *args: Any, options: hotstart.Options = EAGER, **more: Any) -> Any:
    return hotstart.compile(model, args, options=options, **more)


def bound_functions(program: hotstart.Program) -> object:
    """The variants' functions with the weights they are bound to; the same until weights change."""
    return program._binding()


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))

    def forward(self, x):
        return torch.relu(x * self.weight)


# --- calls outside the contract -------------------------------------------------------------------


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


@pytest.mark.parametrize("policy", ["eager", "compile"])
@pytest.mark.parametrize("kind", [CachesBySize, Remembers])
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


# --- results --------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Result:
    value: Any
    name: str = "result"
    extra: Any = None


class Custom:
    def __init__(self, parts: list[Any], tag: str) -> None:
        self.parts, self.tag = parts, tag


pytree.register_pytree_node(
    Custom, lambda c: (c.parts, c.tag), lambda parts, tag: Custom(list(parts), tag)
)


def flat(value: Any) -> Any:
    """A result in a form that can be compared, with the types of everything in it."""
    kind = type(value)
    if isinstance(value, torch.Tensor):
        return kind, value.tolist()
    if isinstance(value, Custom):
        return kind, flat(value.parts), value.tag
    if isinstance(value, dict):
        return kind, [(k, flat(v)) for k, v in value.items()]
    if isinstance(value, tuple | list):
        return kind, [flat(v) for v in value]
    if dataclasses.is_dataclass(value):
        return kind, [(f.name, flat(getattr(value, f.name))) for f in dataclasses.fields(value)]
    return kind, value


RESULTS = {
    "tensor": lambda x: x + 1,
    "tuple": lambda x: (x + 1, x),
    "single": lambda x: (x + 1,),
    "list": lambda x: [x + 1, [x + 2], ()],
    "dict": lambda x: {"a": x + 1, 2: (x + 2, None), "c": {}},
    "ordered": lambda x: collections.OrderedDict([("z", x + 1), ("a", x)]),
    "namedtuple": lambda x: Point(x + 1, Point(x, y="text")),
    "dataclass": lambda x: Result(x + 1, extra=[x]),
    "ModelOutput": lambda x: BaseModelOutput(last_hidden_state=x + 1, hidden_states=(x, x * 2)),
    "registered": lambda x: Custom([x + 1, {"k": x}], "tag"),
    "topk": lambda x: torch.topk(x, 1),
    "constants": lambda x: (x + 1, None, 1.5, float("inf"), torch.float16, "s", slice(2), 1j, True),
    "repeated": lambda x: [y := x + 1, y, (y,)],
    "nested": lambda x: ({"a": [Point(x + 1, (x,))]}, [Result(x * 2)]),
    "sizes": lambda x: (x + 1, x.shape[0], x.shape[0] * 2 + 1, x.numel()),
    "shape": lambda x: (x + 1, x.shape, x.size()),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_results_have_the_models_own_types(kind: str) -> None:
    model = RESULTS[kind]
    program = build(model, torch.randn(3), dynamic_shapes={"x": {0: ANY}})
    for size in (1, 3, 16):
        x = torch.randn(size)
        assert flat(program(x)) == flat(model(x))


def test_the_same_tensor_stays_the_same_object() -> None:
    first, second, (third,) = build(RESULTS["repeated"], torch.randn(3))(torch.randn(3))
    assert first is second is third


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
