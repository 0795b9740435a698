from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hotstart import Dim
from hotstart.errors import CaptureError, RangeError
from tests.capturing import captured, compiled
from tests.versions import checks_tensors

X = torch.randn(4, 8)


def line_of(function: Callable[..., Any], containing: str) -> str:
    """`file:line` of the line of a function that contains a text."""
    lines, start = inspect.getsourcelines(function)
    (at,) = [start + i for i, line in enumerate(lines) if containing in line]
    return f"{__file__}:{at}"


# --- what cannot be captured ----------------------------------------------------------------------


def branches_on_values(x: torch.Tensor) -> torch.Tensor:
    if x.sum() > 0:
        return x * 2
    return x


def breaks(x: torch.Tensor) -> torch.Tensor:
    torch._dynamo.graph_break()
    return x * 2


def reads_a_file(x: torch.Tensor) -> torch.Tensor:
    with open("/dev/null") as file:  # noqa: PTH123
        return x * len(file.read())


def branches_on_a_number(x: torch.Tensor) -> torch.Tensor:
    n = x.nonzero().shape[0]
    if n > 3:
        return x + n
    return x


def counts_to_a_number(x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.sum())):
        x = x + 1
    return x


def has_wrong_shapes(x: torch.Tensor) -> torch.Tensor:
    return x @ x


def sets_a_context_variable(x: torch.Tensor) -> torch.Tensor:
    VARIABLE.set(2)
    return x * 2


VARIABLE = contextvars.ContextVar("VARIABLE", default=1)


@pytest.mark.parametrize(
    ("function", "at", "because"),
    [
        (branches_on_values, "if x.sum() > 0", "a branch depends on the contents"),
        (breaks, "graph_break()", "graph_break()"),
        (reads_a_file, "with open", "open"),
        (branches_on_a_number, "if n > 3", "a branch depends on the contents"),
        (counts_to_a_number, "for _ in range", "needs a number that depends on the contents"),
        (has_wrong_shapes, "x @ x", "(4, 8)"),
        (sets_a_context_variable, "VARIABLE.set", "ContextVar"),
    ],
)
def test_a_refusal_names_the_users_line_and_what_to_do(
    function: Callable[..., Any], at: str, because: str
) -> None:
    with pytest.raises(CaptureError) as caught:
        captured(function, X)
    message = str(caught.value)
    labels = [line.split(":")[0].strip() for line in message.splitlines()[1:]]
    assert labels == ["at", "because", "do"]
    assert line_of(function, at) in message
    assert because in message
    assert "TORCH_LOGS" not in message
    assert len(message) < 1000


class SetUpInItsFirstCall(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale: float | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.scale is None:
            with LOCK:
                self.scale = 2.0
        return x * self.scale


LOCK = threading.Lock()


def test_a_lock_that_is_taken_in_the_first_call_only_is_no_problem_in_the_second() -> None:
    model = SetUpInItsFirstCall()
    with pytest.raises(CaptureError, match="call the model once before"):
        captured(model, X)
    model(X)
    assert torch.equal(compiled(model, X)(X), 2 * X)


def test_the_line_is_the_users_even_below_a_module_of_torch() -> None:
    class Lists(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor((x + 1j).tolist())

    with pytest.raises(CaptureError) as caught:
        captured(nn.Sequential(nn.Linear(8, 8), Lists()), X)
    assert line_of(Lists, "tolist") in str(caught.value)


class PadsByABuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("width", torch.tensor(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (self.width, self.width))


class CatsPads(PadsByABuffer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super().forward(x[:, :4]), x])


class PadsByASum(PadsByABuffer):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(x, (self.width, self.width + x.shape[1]))


@pytest.mark.parametrize("model", [PadsByABuffer, PadsByASum, CatsPads])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_number_that_a_buffer_holds_is_read_in_every_call(
    model: Callable[[], PadsByABuffer], axis: int | None
) -> None:
    held = model()
    dynamic = {} if axis is None else {"x": {axis: Dim("size", max=16)}}
    program = compiled(held, X, dynamic=dynamic)
    for width in (2, 1, 0):
        held.width.fill_(width)
        assert_same_or_raises(program, held)


def assert_same_or_raises(program: Callable[..., Any], model: nn.Module) -> None:
    try:
        expected = model(X)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="as the model"):
            program(X)
    else:
        assert torch.equal(program(X), expected)


def test_a_model_without_tensor_operations_is_refused() -> None:
    with pytest.raises(CaptureError, match="no tensor operation"):
        captured(lambda x: 3, X)


# --- what a model says of contents ----------------------------------------------------------------


def says_of_a_tensor(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    torch._check_tensor_all(n >= 0)
    return x * 2


def says_of_a_number(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    count = n.sum().item()
    torch._check(count == 3)
    return x * count


def says_a_range(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    count = n.sum().item()
    torch._check(count > 0)
    return x * count


def says_a_size(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    count = n.sum().item()
    torch._check(count == x.shape[0])
    return x * count


def says_a_shape(x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    found = n.nonzero()
    torch._check(found.shape[0] == 3)
    return x[0, 0] + found


@pytest.mark.parametrize(
    "function", [pytest.param(says_of_a_tensor, marks=checks_tensors), says_of_a_number]
)
def test_what_a_model_says_of_a_tensors_contents_is_checked_in_every_call(
    function: Callable[..., Any],
) -> None:
    ones = torch.ones(3, dtype=torch.long)
    program = compiled(function, X, ones)
    assert torch.equal(program(X, ones), function(X, ones))
    with pytest.raises(RuntimeError, match=rf"test_trace\.py:\d+ in {function.__name__}"):
        program(X, torch.tensor([3, 1, -2]))


@checks_tensors
def test_where_the_source_is_installed_does_not_get_into_such_a_check() -> None:
    program = compiled(says_of_a_tensor, X, torch.ones(3))
    ((stitched,),) = (call.stitched for call in program.artifact.calls)
    assert "test_trace.py" in stitched.source
    assert __file__.rpartition("/")[0] not in stitched.source


@pytest.mark.parametrize("function", [says_a_range, says_a_size, says_a_shape])
def test_what_a_model_says_of_numbers_that_depend_on_data_is_checked_in_every_call(
    function: Callable[..., Any],
) -> None:
    ones = torch.ones(4, dtype=torch.long)
    ones[0] = X.shape[0] - 3 if function is says_a_size else 0
    program = compiled(function, X, ones, dynamic={"x": {0: Dim("batch", max=8)}})
    assert torch.equal(program(X, ones), function(X, ones))
    for other in (ones * 0, ones - 2):
        with pytest.raises(RuntimeError):
            function(X, other)
        with pytest.raises(RuntimeError, match="as the model needs it"):
            program(X, other)


# --- what narrows a range -------------------------------------------------------------------------


def branches_on_size(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] > 5:
        return x * 2
    return x + 1


def asserts(x: torch.Tensor) -> torch.Tensor:
    assert x.shape[0] <= 12
    return x * 2


def compares(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == 4 else x


def indexes_a_list(x: torch.Tensor) -> torch.Tensor:
    return x * [1, 2, 3, 4, 5][int(x.shape[0]) - 1]


def views_in_pairs(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1, 2, 8).sum(1)


def rounds_to_chunks(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] % 4 != 0:
        raise ValueError
    return x * 2


def treats_one_apart(x: torch.Tensor) -> torch.Tensor:
    return x.sum(0) if x.shape[0] == 1 else x * 2


@pytest.mark.parametrize(
    ("function", "source", "condition"),
    [
        (branches_on_size, "if x.shape[0] > 5", "s <= 5"),
        (asserts, "assert x.shape[0] <= 12", "s <= 12"),
        (compares, "if x.shape[0] == 4", "s == 4"),
        (indexes_a_list, "int(x.shape[0])", "s == 4"),
        (views_in_pairs, "x.view(-1, 2, 8)", "16"),
        (rounds_to_chunks, "% 4 != 0", "(s % 4) == 0"),
        (treats_one_apart, "== 1", "s != 1"),
    ],
)
def test_a_narrowed_range_is_an_error_that_names_the_axis_and_the_line(
    function: Callable[..., Any], source: str, condition: str
) -> None:
    with pytest.raises(RangeError) as caught:
        captured(function, X, dynamic={"x": {0: Dim("s", max=16)}})
    assert caught.value.axis == "s"
    assert condition in caught.value.condition
    assert source in caught.value.source
    assert "do:" in str(caught.value)


def test_the_advised_sizes_then_work() -> None:
    dynamic = {"x": {0: Dim("s", max=16, sizes=[1])}}
    program = compiled(treats_one_apart, X, dynamic=dynamic)
    for size in (1, 2, 16):
        x = torch.randn(size, 8)
        assert torch.equal(program(x), treats_one_apart(x))


def test_the_advised_ranges_then_work() -> None:
    dynamic = {"x": {0: Dim("s", ranges=[(1, 5), (6, 16)])}}
    program = compiled(branches_on_size, X, dynamic=dynamic)
    for size in (1, 5, 6, 16):
        x = torch.randn(size, 8)
        assert torch.equal(program(x), branches_on_size(x))


def adds(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def compares_sizes(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == y.shape[0] else x


@pytest.mark.parametrize("function", [adds, compares_sizes])
def test_axes_the_model_needs_equal_are_named(function: Callable[..., Any]) -> None:
    dynamic = {"x": {0: Dim("a", max=9)}, "y": {0: Dim("b", max=9)}}
    with pytest.raises(RangeError, match="same Dim") as caught:
        captured(function, X, X, dynamic=dynamic)
    assert set(caught.value.axis.split(", ")) == {"a", "b"}


@pytest.mark.parametrize("function", [adds, compares_sizes])
def test_one_axis_on_both_inputs_is_known_to_be_equal(function: Callable[..., Any]) -> None:
    axis = Dim("a", max=9)
    graph, _ = captured(function, X, X, dynamic={"x": {0: axis}, "y": {0: axis}})
    program = compiled(function, X, X, dynamic={"x": {0: axis}, "y": {0: axis}})
    assert {str(axis) for axis in graph.symbols.values()} == {"a"}
    x = torch.randn(7, 8)
    assert torch.equal(program(x, x), function(x, x))


def test_a_size_that_is_declared_alone_is_traced_as_a_constant() -> None:
    graph, _ = captured(compares, X, dynamic={"x": {0: Dim("s", sizes=[4], ranges=[])}})
    assert graph.fixed == {"s": 4}
    assert not graph.symbols


# --- functions and their surroundings -------------------------------------------------------------

LINEAR = nn.Linear(8, 8)
OFFSET = torch.randn(8)


def uses_globals(x: torch.Tensor) -> torch.Tensor:
    return LINEAR(x) + OFFSET


class Pipeline:
    def __init__(self) -> None:
        self.net = nn.Linear(8, 8)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * 2


def test_functions_over_modules_and_tensors_run() -> None:
    inner, scale = nn.Linear(8, 8), torch.randn(8)

    def closes_over(x: torch.Tensor) -> torch.Tensor:
        return inner(x) * scale

    for function in (uses_globals, closes_over, Pipeline().run, inner.forward):
        assert torch.equal(compiled(function, X)(X), function(X))


def test_nodes_know_the_modules_they_came_from() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU()))

    def calls(x: torch.Tensor) -> torch.Tensor:
        return net(x)

    def paths(model: Callable[..., Any]) -> list[list[str]]:
        graph, _ = captured(model, X)
        return [
            [path for path, _ in node.meta["nn_module_stack"].values()]
            for node in graph.graph.nodes
            if node.op == "call_function"
        ]

    assert paths(net) == [["0"], ["1", "1.0"]]
    assert paths(calls) == [["net", "net.0"], ["net", "net.1", "net.1.0"]]


def test_capture_leaves_dynamos_state_alone() -> None:
    def f(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    captured(f, X, dynamic={"x": {0: Dim("s", max=16)}})
    assert not hasattr(X, "_dynamo_dynamic_indices")
    assert torch._dynamo.config.assume_static_by_default
    assert not torch._dynamo.config.allow_rnn
