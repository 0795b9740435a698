"""What tests of the first two stages share: capture a model, cut what was captured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import hotstart
from hotstart.capture.arguments import Arguments, describe_arguments
from hotstart.capture.captured import Captured
from hotstart.capture.trace import capture
from hotstart.capture.weight_table import WeightTable, traceable
from hotstart.partition import Piece, Plan, cut, make_plan
from hotstart.specialize.split import Declaration, Splits

CPU = torch.device("cpu")
EAGER = hotstart.Options(compiler="op_by_op")


def described(
    model: Callable[..., Any],
    *args: Any,
    dynamic: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Arguments:
    """The arguments of a call."""
    return describe_arguments(model, args, kwargs, dynamic, CPU)


def captured(
    model: Callable[..., Any],
    *args: Any,
    dynamic: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[Captured, WeightTable]:
    """The first graph of a model, and the table of weights it reads."""
    with traceable(model, CPU) as index:
        arguments = described(model, *args, dynamic=dynamic, **kwargs)
        weights = WeightTable(index)
        declaration = Declaration(arguments.axes, arguments.example_sizes, 0)
        part, *_ = declaration.parts()
        graph = capture(
            index, model, arguments, weights, part.fixed, part.hints, blocks_once=True, passed={}
        )
        Splits(declaration).split(part, graph.assumed)
    return graph, weights


def planned(
    model: Callable[..., Any],
    *args: Any,
    split_on: Any = "auto",
    dynamic: Mapping[str, Any] | None = None,
) -> Plan:
    """The pieces of a model."""
    graph, _ = captured(model, *args, dynamic=dynamic)
    return make_plan(*cut(graph, split_on))


def compiled(
    model: Callable[..., Any],
    *args: Any,
    dynamic: Mapping[str, Any] | None = None,
    split_on: Any = "auto",
    **kwargs: Any,
) -> Any:
    """A program whose pieces run op by op."""
    return hotstart.compile(
        model, args, kwargs, dynamic_shapes=dynamic, split_on=split_on, options=EAGER
    )


def targets(piece: Piece) -> list[str]:
    """The short names of what a piece's nodes call."""
    return [str(getattr(node.target, "__name__", node.target)) for node in piece.nodes]


def digests(plan: Plan) -> list[str]:
    """The digests of a plan's pieces."""
    return [piece.digest for piece in plan.pieces]


def crossing(plan: Plan) -> Sequence[Any]:
    """The traced values of everything that flows from one piece to another."""
    return [node.meta["example_value"] for piece in plan.pieces for node in piece.outputs]
