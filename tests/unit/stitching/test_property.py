"""Stitched code computes what the graph's own interpreter computes, and holds nothing too long."""

from __future__ import annotations

import ast
import operator
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, assume, currently_in_test_context, given, note, settings
from torch import fx
from torch.nn import functional as F  # noqa: N812

import hotstart
from hotstart import _torch
from hotstart.capture.captured import Captured
from hotstart.capture.prepare import prepare
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.partition import cut, make_plan
from hotstart.records.artifact import Requirements
from hotstart.records.contract import Contract, Parameter, TensorSpec
from hotstart.records.nested import Seq, Slot
from hotstart.records.shapes import Variant
from hotstart.records.trees import passed_on
from hotstart.runtime.generated import run_code
from hotstart.stitching.stitch import stitch


def combine(tree: dict[str, Any], *more: Any, scale: float = 1.0) -> torch.Tensor:
    """Takes tensors nested in dicts, lists and tuples."""
    first, rest = tree["first"], tree["rest"]
    return (first + sum(t.sum() for t in rest[0]) - rest[1]["deep"].mean() + len(more)) * scale


def pair(x: torch.Tensor, *, split: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns a tuple; takes a slice by keyword."""
    return x[split], x.sum()


# --- random graphs --------------------------------------------------------------------------------


@dataclass
class Builder:
    """A graph under construction; every node's value is known as a fake tensor."""

    draw: Callable[..., Any]
    graph: fx.Graph = field(default_factory=fx.Graph)
    tensors: list[fx.Node] = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)

    def value(self, node: fx.Node) -> Any:
        return node.meta["example_value"]

    def input(self, shape: tuple[int, ...]) -> fx.Node:
        node = self.graph.placeholder(f"x{len(self.tensors)}")
        node.meta["example_value"] = torch.empty(shape)
        self.tensors.append(node)
        return node

    def call(self, op: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        real = fx.node.map_arg((args, kwargs), self.value)
        if op == "call_method":
            result = getattr(real[0][0], target)(*real[0][1:], **real[1])
        else:
            result = target(*real[0], **real[1])
        node = self.graph.create_node(op, target, args, kwargs)
        node.meta["example_value"] = result
        if isinstance(result, torch.Tensor):
            self.tensors.append(node)
        if target not in (operator.getitem, operator.setitem):
            self.targets.append(target)
        return node

    def function(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return self.call("call_function", target, *args, **kwargs)

    def method(self, target: str, *args: Any, **kwargs: Any) -> fx.Node:
        return self.call("call_method", target, *args, **kwargs)

    def pick(self, *, dims: int | None = None, like: fx.Node | None = None) -> fx.Node:
        """A tensor made so far; at least one-dimensional and not empty."""
        shape = None if like is None else self.value(like).shape
        fitting = [
            node
            for node in self.tensors
            if self.value(node).numel()
            and self.value(node).ndim >= (dims or 1)
            and self.value(node).is_floating_point()
            and (shape is None or self.value(node).shape == shape)
        ]
        assume(fitting)
        return self.draw(st.sampled_from(fitting))

    def dim(self, node: fx.Node) -> int:
        rank = self.value(node).ndim
        return self.draw(st.integers(-rank, rank - 1))


def unary(b: Builder) -> None:
    x = b.pick()
    target = b.draw(
        st.sampled_from(
            [torch.relu, F.gelu, torch.sin, operator.neg, "abs", "tanh", "contiguous", "clone",
             torch.ops.aten.exp.default, torch.ops.aten.cos]
        )
    )  # fmt: skip
    b.method(target, x) if isinstance(target, str) else b.function(target, x)


def infix(b: Builder) -> None:
    x = b.pick()
    y = b.draw(st.sampled_from([b.pick(like=x), 2, -1.5, 0.1]))
    function = b.draw(st.sampled_from([operator.add, operator.sub, operator.mul, operator.truediv]))
    b.function(function, *b.draw(st.permutations([x, y])))


def keywords(b: Builder) -> None:
    x = b.pick()
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.function(torch.add, x, b.pick(like=x), alpha=b.draw(st.sampled_from([2, -0.5])))
    elif kind == 1:
        b.method("sum", x, dim=(b.dim(x),), keepdim=b.draw(st.booleans()), dtype=torch.float32)
    elif kind == 2:
        b.function(F.softmax, x, dim=b.dim(x), dtype=None)
    elif kind == 3:
        b.function(torch.clamp, input=x, min=-float("inf"), max=b.draw(st.floats(0, 2)))
    else:
        b.function(torch.zeros_like, x, memory_format=torch.contiguous_format)


def in_place(b: Builder) -> None:
    x = b.pick()
    if b.draw(st.booleans()):
        x = b.method("clone", x)
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.method("add_", x, 1.5)
    elif kind == 1:
        b.function(operator.imul, x, -2)
    elif kind == 2:
        b.function(torch.relu_, x)
    elif kind == 3:
        index = b.draw(st.sampled_from([0, slice(0, 1), (..., 0), -1]))
        b.function(operator.setitem, x, index, b.draw(st.sampled_from([0.25, -3])))
    else:
        view = b.function(operator.getitem, x, 0)
        b.method("mul_", view, 3)


def index(b: Builder) -> None:
    x = b.pick()
    forms = [
        0, -1, slice(None), slice(0, 1), slice(None, None, 2), ..., None, (..., None),
        (None, 0), [0, 0], (..., slice(0, 1)), (..., 0),
    ]  # fmt: skip
    if b.value(x).ndim > 1:
        forms += [(slice(None), 0), (0, -1), (slice(0, 1), None, ..., 0), ([0, 0], slice(0, 1))]
    b.function(operator.getitem, x, b.draw(st.sampled_from(forms)))


def tuples(b: Builder) -> None:
    x = b.pick()
    kind, dim = b.draw(st.integers(0, 6)), b.dim(x)
    made = [
        lambda: b.function(torch.chunk, x, 2, dim=dim),
        lambda: b.method("split", x, 1, dim),
        lambda: b.function(torch.topk, x, 1, dim=dim),
        lambda: b.function(torch.max, x, dim),
        lambda: b.method("unbind", x, dim),
        lambda: b.function(torch.aminmax, x, dim=dim, keepdim=True),
        lambda: b.function(pair, x, split=slice(0, b.draw(st.sampled_from([None, 1])))),
    ][kind]()
    length = len(b.value(made))
    for item in b.draw(st.lists(st.integers(-length, length - 1), max_size=3)):
        b.function(operator.getitem, made, item)
    if kind < 2 and b.draw(st.booleans()):
        b.function(torch.cat, made, dim)


def nested(b: Builder) -> None:
    x, y, z = b.pick(), b.pick(), b.pick()
    kind = b.draw(st.integers(0, 3))
    if kind == 0:
        b.function(torch.cat, [x, b.pick(like=x)], dim=b.dim(x))
    elif kind == 1:
        b.function(torch.stack, tensors=(x, b.pick(like=x), x))
    elif kind == 2:
        b.function(combine, {"first": x, "rest": ([y, x], {"deep": z})}, (y, [z]), scale=0.5)
    else:
        b.function(torch.where, b.function(operator.gt, x, 0), x, b.pick(like=x))


def shapes(b: Builder) -> None:
    x = b.pick(dims=2)
    kind = b.draw(st.integers(0, 4))
    if kind == 0:
        b.method("transpose", x, 0, 1)
    elif kind == 1:
        b.method("reshape", x, (-1,))
    elif kind == 2:
        b.function(torch.matmul, x, b.method("transpose", x, -1, -2))
    elif kind == 3:
        b.method("unsqueeze", x, b.dim(x))
    else:
        b.function(torch.empty_like, x)  # never read: its contents are undefined
        b.tensors.pop()


STEPS = [unary, infix, keywords, in_place, index, tuples, nested, shapes]


@dataclass(frozen=True)
class Case:
    """A random graph, what it returns, and where to cut it."""

    graph: fx.Graph
    returned: tuple[fx.Node, ...]
    split_on: tuple[Any, ...]

    def module(self) -> fx.GraphModule:
        """The graph as a module of its own, before hotstart touches it."""
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.graph, copied)
        graph.output(tuple(copied[node] for node in self.returned))
        return fx.GraphModule({}, graph)


@st.composite
def cases(draw: Callable[..., Any]) -> Case:
    builder = Builder(draw)
    with _torch.fake_mode():
        for _ in range(draw(st.integers(1, 3))):
            builder.input(draw(st.sampled_from([(4,), (2, 3), (3, 2), (2, 3, 2), (1, 4)])))
        for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=10)):
            step(builder)
    assume(builder.targets)
    returned = draw(st.lists(st.sampled_from(builder.tensors), min_size=1, max_size=4))
    split_on = draw(st.lists(st.sampled_from(builder.targets), max_size=4, unique_by=id))
    return Case(builder.graph, tuple(returned), tuple(split_on))


# --- from a graph to a function -------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What stitching made of a case."""

    run: Callable[..., Any]
    source: str
    units: tuple[str, ...]


def stitched(case: Case) -> Made:
    """Cut a case's graph, compile its pieces op by op, and stitch them."""
    inputs = [node for node in case.graph.nodes if node.op == "placeholder"]
    returned = list(dict.fromkeys(node for node in case.returned if node not in inputs))
    result = Seq(
        tuple,
        tuple(
            Slot("arg", inputs.index(node)) if node in inputs else Slot("out", returned.index(node))
            for node in case.returned
        ),
    )
    case.graph.output(tuple(returned))
    captured = Captured(
        graph=case.graph,
        module=fx.GraphModule({}, case.graph),
        inputs=tuple(Slot("arg", index) for index in range(len(inputs))),
        symbols={},
        outputs=result,
        updates=(),
        conditions=(),
        fixed={},
        modes=(),
    )
    prepare(case.graph, str)
    graph, runs = cut(captured, list(case.split_on))
    plan = make_plan(graph, runs)
    contract = Contract(
        parameters=tuple(
            Parameter(node.name, "positional", Slot("arg", i)) for i, node in enumerate(inputs)
        ),
        tensors=tuple(
            TensorSpec(node.name, "float32", "cpu", tuple(shape), ())
            for node in inputs
            for shape in [node.meta["example_value"].shape]
        ),
        axes=(),
        training=None,
        autocast=(),
        mutated_args=(),
        given=passed_on([result], "arg"),
    )
    nothing = Requirements(weights=(), unread=(), modes=(), kinds=(), modules=())
    compiled = {piece.name: piece for piece in plan.pieces if piece.kind == "compiled"}
    units = {
        piece.digest: OpByOpCompiler().compile(Job(piece.digest, piece, graph, {}))
        for piece in reversed(compiled.values())
    }
    running = {name: units[piece.digest] for name, piece in compiled.items()}
    made = stitch(plan, nothing, contract, Variant(()), running)
    by_key = {unit.key: unit for unit in units.values()}
    calls = [run_code(by_key[key].code, dict(by_key[key].constants))["bind"] for key in made.units]
    run = run_code(made.code, {})["bind"]([], calls, made.constants, [])

    def call(*tensors: torch.Tensor) -> Any:
        with torch.no_grad():
            return run(*tensors, *(tensors[slot] for slot in contract.given))

    if currently_in_test_context():
        note("\n".join([made.source, *(by_key[key].source for key in made.units)]))
    return Made(call, made.source, tuple(by_key[key].source for key in made.units))


def examples(case: Case) -> list[torch.Tensor]:
    torch.manual_seed(0)
    inputs = [node for node in case.graph.nodes if node.op == "placeholder"]
    return [torch.randn(node.meta["example_value"].shape) for node in inputs]


def assert_same(left: Any, right: Any) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert repr(a.tolist()) == repr(b.tolist())  # tells -0.0 from 0.0; nan is nan


quick = settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    print_blob=True,
)


@quick
@given(cases())
def test_stitched_code_equals_the_interpreter_bit_for_bit(case: Case) -> None:
    inputs, expected_inputs = examples(case), examples(case)
    expected = fx.Interpreter(case.module()).run(*expected_inputs)
    made = stitched(case)
    found = made.run(*inputs)
    assert_same(found, expected)
    assert_same(inputs, expected_inputs)
    for node, value in zip(case.returned, found, strict=True):
        if node.op == "placeholder":
            assert any(value is given for given in inputs)


@settings(quick, max_examples=6)
@given(cases())
def test_a_program_equals_the_interpreter_bit_for_bit(case: Case) -> None:
    module = case.module()
    inputs, expected_inputs = examples(case), examples(case)
    expected = fx.Interpreter(module).run(*expected_inputs)
    try:
        program = hotstart.compile(
            module, tuple(examples(case)), options=hotstart.Options(compiler="op_by_op")
        )
    except hotstart.CaptureError as error:
        assume("no tensor operation" not in str(error))
        raise
    assert_same(program(*inputs), expected)
    assert_same(inputs, expected_inputs)


# --- liveness -------------------------------------------------------------------------------------


def assert_released(function: ast.FunctionDef) -> None:
    """Every value is deleted right after its last use, or still needed by the return statement."""
    live = {a.arg: -1 for a in function.args.args}
    for position, statement in enumerate(function.body):
        names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
        if isinstance(statement, ast.Delete):
            for name in names:
                last = live.pop(name.id)  # KeyError: deleted twice
                assert last == position - 1, f"{name.id} outlives its last use"
            continue
        for name in names:
            if name.id in live:
                live[name.id] = position
        for name in names:
            if isinstance(name.ctx, ast.Store):
                live[name.id] = position
    kept = {name for name, last in live.items() if last != len(function.body) - 1}
    assert kept <= {"args"}, f"{kept} are never released"


@quick
@given(cases())
def test_no_value_outlives_its_last_use(case: Case) -> None:
    made = stitched(case)
    for source in (made.source, *made.units):
        functions = [
            node
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.FunctionDef) and node.name in ("run", "call")
        ]
        (function,) = functions
        assert_released(function)


MADE: list[weakref.ref[torch.Tensor]] = []
ALIVE: list[int] = []


def watched(x: torch.Tensor) -> torch.Tensor:
    """Notes how many results of earlier calls still exist."""
    if not _torch.is_fake(x):
        ALIVE.append(sum(made() is not None for made in MADE))
    result = x + 1
    MADE.append(weakref.ref(result))
    return result


@pytest.mark.parametrize("split_on", [(), (watched,), (torch.sin,), (torch.sin, torch.cos)])
def test_intermediate_tensors_are_freed_while_the_code_runs(split_on: tuple[Any, ...]) -> None:
    graph = fx.Graph()
    node = graph.placeholder("x")
    for target in (watched, torch.sin, watched, torch.cos, watched, watched, watched):
        node = graph.call_function(target, (node,))
        graph.call_function(watched, (node,))  # nobody uses this value
    with _torch.fake_mode():
        for each in graph.nodes:
            each.meta["example_value"] = torch.empty(3)
    made = stitched(Case(graph, (node,), split_on))
    MADE.clear()
    ALIVE.clear()
    made.run(torch.randn(3))
    # What is alive in a call is its own argument, where an earlier call made it.
    assert ALIVE == [0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1]
