"""List everything that stands in the way of capturing a model as one graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import torch

from hotstart import faults
from hotstart._torch.dynamo.broken_graphs import graph_breaks
from hotstart._torch.dynamo.compile_lock import compile_lock
from hotstart.calls import Call, requested_calls
from hotstart.capture.described import describe_calls, device_of
from hotstart.capture.weight_table import traceable
from hotstart.errors import HotstartError
from hotstart.events import Clock
from hotstart.faults import require
from hotstart.first_call.model_state import ModelState
from hotstart.model import Model, method_of
from hotstart.options import Options
from hotstart.specialize.trace import not_captured
from hotstart.specialize.trace_model import trace_model

log = logging.getLogger("hotstart")

VERSION = 1
"""Of the JSON document."""


class Obstacle(msgspec.Struct, frozen=True):
    """A place where forward does what no graph can hold.

    Attributes:
        call: the name of the call; empty where there is one.
        line: file, line, function and source of the model's code.
        reason: what is there.
        advice: what to change.
    """

    call: str
    line: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return "\n".join(
            f"{name + ':':9}{text}"
            for name, text in (
                ("call", self.call),
                ("at", self.line),
                ("because", self.reason),
                ("do", self.advice),
            )
            if text
        )


class CaptureReport(msgspec.Struct, frozen=True):
    """Obstacles to capturing a model as one graph; none if it can be captured.

    Attributes:
        error: what `hotstart.compile` raises: its class and message; empty if it is captured.
        obstacles: all places where Dynamo breaks the graph, in the order of the calls. What only
            hotstart refuses is in `error` alone.
        version: of this document.
    """

    error: str
    obstacles: tuple[Obstacle, ...]
    version: int = VERSION

    @property
    def captured(self) -> bool:
        """Tell whether the model can be captured."""
        return not self.error

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as JSON has it."""
        return {"captured": self.captured, **msgspec.to_builtins(self)}

    def __str__(self) -> str:
        if self.captured:
            return "the model is captured as one graph for each call"
        if not self.obstacles:
            return self.error
        count = len(self.obstacles)
        told = any(obstacle.line in self.error for obstacle in self.obstacles)
        besides = "" if told else ", besides the one that the build names"
        head = f"{count} place{'s' * (count > 1)} where the graph breaks{besides}:"
        return "\n\n".join([head, *map(str, self.obstacles), f"the build says: {self.error}"])


def explain_capture(
    model: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    calls: Mapping[str, Call] | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
) -> CaptureReport:
    """List everything that stands in the way of capturing a model, and not the first thing only.

    The model is captured as for `hotstart.compile`, and nothing is compiled. If that fails, each
    call is made once, in eager mode with graphs where there can be some, to find all places where
    one ends: what the model does besides, it does then. `torch.compile` forgets what it compiled.

    Args:
        model: as for `hotstart.compile`.
        args: a real call, by position; fake and meta tensors show the first obstacle only.
        kwargs: the same by name.
        dynamic_shapes: as for `hotstart.compile`.
        calls: as for `hotstart.compile`.
        split_on: as for `hotstart.compile`.
        options: as for `hotstart.compile`.

    Raises:
        OptionsError: an argument makes no sense.
    """
    options = Options() if options is None else options
    require("options", options, Options, "a hotstart.Options")
    wanted = requested_calls(Call(args=args, kwargs=kwargs, dynamic_shapes=dynamic_shapes), calls)
    try:
        _capture(model, wanted, split_on, options)
    except HotstartError as error:
        refusal = f"{type(error).__name__}: {error}"
    else:
        return CaptureReport("", ())
    found = [
        Obstacle(name, *place) for name, call in wanted.items() for place in _breaks(model, call)
    ]
    return CaptureReport(refusal, tuple(found))


def _capture(model: Model, wanted: Mapping[str, Call], split_on: Any, options: Options) -> None:
    described = describe_calls(model, wanted, options)
    clock = Clock(options.on_event)
    here = traceable(model, device_of(options))
    state = ModelState(model)
    try:
        with faults.typed(not_captured), compile_lock(), here as index:
            trace_model(index, described, options, split_on, clock)
    finally:
        state.put_back()  # after a first call, too


def _breaks(model: Model, call: Call) -> list[tuple[str, str, str]]:
    """The places where a call breaks the graph; none if it cannot be made."""
    function = method_of(model, call.method)
    try:
        with torch.no_grad():
            return graph_breaks(function, call.args, call.kwargs or {})
    except Exception as error:  # noqa: BLE001  whatever the model raises
        log.warning("the call cannot be made to look for more: %s", error)
        return []
