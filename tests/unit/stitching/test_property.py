"""Stitched code of random graphs computes what the graphs compute, and keeps nothing alive."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, currently_in_test_context, given, note, settings
from torch import fx

import hotstart
from hotstart._torch.graphs.symbols import fake_mode, is_fake
from hotstart.capture.captured import Captured
from hotstart.capture.prepare import prepare
from hotstart.compilers import Job, OpByOpCompiler
from hotstart.partition import cut, make_plan
from hotstart.records.artifact import Requirements
from hotstart.records.contract import Contract, Parameter, TensorSpec
from hotstart.records.nested import Seq, Slot
from hotstart.records.shapes import Variant
from hotstart.records.trees import passed_on
from hotstart.runtime.code.generated import run_code
from hotstart.stitching.stitch import stitch
from tests.unit.stitching.random_graphs import Case, cases

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


@pytest.mark.thorough
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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
    if not is_fake(x):
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
    with fake_mode():
        for each in graph.nodes:
            each.meta["example_value"] = torch.empty(3)
    made = stitched(Case(graph, (node,), split_on))
    MADE.clear()
    ALIVE.clear()
    made.run(torch.randn(3))
    # What is alive in a call is its own argument, where an earlier call made it.
    assert ALIVE == [0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1]
