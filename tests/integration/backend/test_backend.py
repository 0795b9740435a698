"""`torch.compile(backend="hotstart")` gives what the model gives, by as many graphs as stock."""

from __future__ import annotations

import importlib.metadata
import math
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo.exc
import torch.fx.experimental._config
from torch import Tensor, nn

import hotstart
from hotstart.backend import hotstart as backend
from qualification.forks import Forks
from tests.integration.backend.calls import EAGER, Block, assert_same, check, compiled

ROOT = Path(__file__).parents[3]


# --- the name -------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_torch_finds_the_backend_by_the_entry_point_of_the_package(
    tmp_path: Path, forks: Forks
) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = tmp_path / "hotstart-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hotstart\nVersion: 0\n")
    lines = [
        line
        for group, names in groups.items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in names.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (point,) = importlib.metadata.Distribution.at(metadata).entry_points
    assert point.load() is backend
    code = (
        "import torch\n"
        "f = torch.compile(torch.sin, backend='hotstart', options={'compiler': 'op_by_op'})\n"
        "assert 'hotstart' in torch.compiler.list_backends()\n"
        "x = torch.ones(3)\n"
        "assert torch.equal(f(x), x.sin())\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(hotstart.__file__).parents[1])])
    done = forks.run(["-c", code], {**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr


# --- results --------------------------------------------------------------------------------------


class Stack(nn.Module):
    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        for block in self.blocks:
            x = block(x)
        return x * self.calls


def test_inductor_compiles_each_different_piece_once_for_all_sizes() -> None:
    events: list[hotstart.events.Event] = []  # type: ignore[name-defined]
    torch.manual_seed(0)
    model, twin = Stack(), Stack()
    twin.load_state_dict(model.state_dict())
    call = compiled(model, {"on_event": events.append}, dynamic=True, fullgraph=True)
    check(call, twin, *((torch.randn(size, 8),) for size in (3, 2, 9)))
    assert_same(model.calls, twin.calls)
    (done,) = (event for event in events if event.kind == "build_finished")
    assert done.detail["pieces"] == "6"
    assert int(done.detail["reused"]) >= 2
    assert len(call.graphs) == 1


@pytest.mark.slow
def test_what_the_compiler_assumes_about_a_size_becomes_a_guard() -> None:
    def fold(x: Tensor) -> Tensor:
        return x.view(-1, 4) * 2 if x.shape[0] % 4 == 0 else x * 3

    call = compiled(fold, {}, dynamic=True)
    check(call, fold, *((torch.randn(size),) for size in (8, 12, 9, 16, 7)))
    assert len(call.graphs) == 2


@pytest.mark.parametrize(("asks", "unique"), [(False, "1"), (True, "2")])
def test_pieces_of_which_different_things_are_guarded_share_no_code(
    asks: bool, unique: str
) -> None:
    def fn(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if asks and x.shape[0] % 4:
            return x, y
        return torch.relu(x.sin()), torch.relu(y.sin())

    events: list[Any] = []
    options = {**EAGER, "split_on": ["aten::relu"], "on_event": events.append}
    with torch.fx.experimental._config.patch(use_duck_shape=False):  # two symbols of one size
        check(compiled(fn, options, dynamic=True), fn, (torch.randn(8), torch.randn(8)))
    (done,) = (event for event in events if event.kind == "build_finished")
    assert done.detail["unique"] == unique


@pytest.mark.slow
def test_a_convolution_serves_small_and_large_batches_by_graphs_of_their_own() -> None:
    model = nn.Conv2d(3, 4, 3).eval()
    call = compiled(model, {}, dynamic=True)
    check(call, model, *((torch.randn(batch, 3, 8, 8),) for batch in (2, 15, 16, 40)))
    assert len(call.graphs) == 2


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_as_many_graphs_as_stock(dynamic: bool | None) -> None:
    sizes = (4, 5, 6, 1, 0)
    stock: list[int] = []

    def double(x: Tensor) -> Tensor:
        return x * 2

    def counting(module: Any, inputs: Any) -> Any:
        stock.append(1)
        return module.forward

    plain = torch.compile(double, backend=counting, dynamic=dynamic)
    for size in sizes:
        plain(torch.randn(size, 3))
    torch.compiler.reset()
    call = compiled(double, dynamic=dynamic)
    check(call, double, *((torch.randn(size, 3),) for size in sizes))
    assert len(call.graphs) == len(stock)


def test_a_marked_dimension_is_dynamic_from_the_first_call() -> None:
    call = compiled(torch.sin)
    first = torch.randn(5, 3)
    torch._dynamo.mark_dynamic(first, 0, min=2, max=64)
    check(call, torch.sin, (first,), (torch.randn(9, 3),), (torch.randn(64, 3),))
    assert len(call.graphs) == 1
    check(call, torch.sin, (torch.randn(65, 3),))
    assert len(call.graphs) == 2


def test_graphs_between_graph_breaks() -> None:
    def broken(x: Tensor) -> Tensor:
        y = x.sin()
        torch._dynamo.graph_break()
        return y.cos() + x

    call = compiled(broken)
    check(call, broken, (torch.randn(3),), (torch.randn(4),))
    assert len(call.graphs) == 4


def test_a_module_that_compiles_itself() -> None:
    model = Block().eval()
    expected = Block().eval()
    expected.load_state_dict(model.state_dict())
    model.compile(backend=backend, options=EAGER)
    check(model, expected, (torch.randn(3, 8),))


def test_a_method() -> None:
    class Engine:
        def __init__(self) -> None:
            self.layer = nn.Linear(4, 4)

        def step(self, x: Tensor) -> Tensor:
            return self.layer(x).relu()

    engine = Engine()
    check(compiled(engine.step), engine.step, (torch.randn(3, 4),))


INPUTS: dict[str, tuple[Callable[..., Any], tuple[tuple[Any, ...], ...]]] = {
    "transposed": (lambda x: x * 2 + x.sum(), ((torch.randn(4, 6).t(),), (torch.randn(7, 5).t(),))),
    "dynamic strides": (
        lambda x: (x * 2, x.reshape(-1)),
        ((torch.randn(6, 10)[:, :4],), (torch.randn(5, 12)[:, :3],), (torch.randn(5, 13)[:, 2:5],)),
    ),
    "dynamic offsets": (
        lambda x: x.as_strided((2, 3), (3, 1)) + 1,
        ((torch.randn(20)[3:],), (torch.randn(30)[3:],), (torch.randn(30)[5:],)),
    ),
    "expanded": (
        lambda x: x * 2,
        ((torch.randn(4, 1).expand(4, 5),), (torch.randn(6, 1).expand(6, 3),)),
    ),
    "equal sizes that part": (
        lambda x, y: (x, y + x.shape[0]),
        ((torch.randn(4), torch.randn(4)), (torch.randn(4), torch.randn(6))),
    ),
    "integers": (
        lambda x, n: torch.arange(n) + abs(n - 100) + x.sum(),
        ((torch.ones(3), 5), (torch.ones(3), 200), (torch.ones(3), 1), (torch.ones(3), 0)),
    ),
    "an integer that an operator asks about": (
        lambda x, n: torch.ones(n).squeeze() + x,
        ((torch.ones(()), 3), (torch.ones(()), 1), (torch.ones(()), 2)),
    ),
    "negative integers": (
        lambda x, n: x + abs(n),
        ((torch.ones(3), -5), (torch.ones(3), -6), (torch.ones(3), 7), (torch.ones(3), 9)),
    ),
    "an index": (
        lambda x, n: x[:, n : n + 2] * 2,
        ((torch.randn(3, 8), 2), (torch.randn(3, 8), 4), (torch.randn(3, 8), 0)),
    ),
    "floats": (lambda x, s: x * s + s * 2, ((torch.ones(3), 0.5), (torch.ones(3), 0.25))),
    "empty": (lambda x: x.sum(0), ((torch.randn(0, 3),), (torch.randn(4, 3),))),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str) -> None:
    fn, calls = INPUTS[name]
    check(compiled(fn, dynamic=True), fn, *calls)


RESULTS: dict[str, Callable[[Tensor], Any]] = {
    "the argument and views of it": lambda x: (x, x.view(-1), x[1:], x.t()),
    "none and constants": lambda x: (None, x + 1, {"kind": "a", "n": 3}),
    "sizes": lambda x: (x + 1, x.shape, x.numel(), x.shape[0] * 2 + 1),
    "floats from sizes": lambda x: (x + 1, math.sqrt(x.shape[0]), x.shape[0] / 3),
    "one value twice": lambda x: (y := x * 2, y, y.view(-1)),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str) -> None:
    fn = RESULTS[name]
    check(compiled(fn, dynamic=True), fn, (torch.randn(3, 4),), (torch.randn(5, 4),))


def test_a_result_that_is_an_argument_is_the_argument() -> None:
    x = torch.randn(3, 4)
    whole, view = compiled(lambda x: (x, x[1:]), dynamic=True)(x)
    assert whole is x
    assert view.data_ptr() == x[1:].data_ptr()


@pytest.mark.thorough
def test_a_cache_is_written_in_place() -> None:
    def step(cache: Tensor, x: Tensor, at: int) -> Tensor:
        cache[:, at : at + 1] = x
        return cache.sum(1)

    call = compiled(step, {}, dynamic=True)
    check(call, step, *((torch.randn(3, 8), torch.randn(3, 1), at) for at in (2, 3, 5)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes(mode: Callable[[], Any]) -> None:
    model = Block().eval()
    call = compiled(model)
    with mode():
        x = torch.randn(3, 8)
        found, expected = call(x), model(x)
    assert_same(found, expected)
    assert found.is_inference() == expected.is_inference()


def test_autocast_around_the_call_and_inside() -> None:
    def inside(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = x @ x
        return y, x @ x

    x = torch.randn(4, 4)
    call = compiled(inside)
    check(call, inside, (x,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(call(x), inside(x))
    check(call, inside, (x,))


def test_gradients_that_end_inside_the_graph_are_no_training() -> None:
    layer = nn.Linear(4, 4)

    def fn(x: Tensor) -> Tensor:
        with torch.no_grad():
            return layer(x).relu()

    x = torch.randn(3, 4)
    found = compiled(fn)(x)  # grad mode is on
    assert_same(found, fn(x))
    assert torch.is_grad_enabled()
