"""Trace a call with Dynamo into one full graph."""

from __future__ import annotations

import builtins
import contextlib
import logging
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.blocks.repeats import Alike, tracing_repeats_once
from hotstart._torch.dynamo.as_eager import tracing_as_eager
from hotstart._torch.dynamo.guards import Read, environment_names, modes_read, object_named, reads
from hotstart._torch.dynamo.idle_branches import passing_idle_branches
from hotstart._torch.dynamo.known_buffers import knowing
from hotstart._torch.dynamo.layout_reads import LayoutReads, recording_layout_reads
from hotstart._torch.dynamo.other_names import recording_other_names
from hotstart._torch.dynamo.passed_objects import recording_passed_objects
from hotstart._torch.dynamo.side_effects import lasting, recording_side_effects
from hotstart._torch.dynamo.sides import Sides
from hotstart._torch.dynamo.trace_globals import names_taken_back
from hotstart._torch.graphs.symbols import (
    Condition,
    failures_unlogged,
    forgetting_real_tensors,
)

if TYPE_CHECKING:
    import sympy
    from torch._dynamo.convert_frame import CaptureOutput
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

log = logging.getLogger("hotstart")


@dataclass(frozen=True)
class FullGraph:
    """Graph of one call, with everything that Dynamo recorded about it.

    Attributes:
        module: the graph, its placeholders in calling order.
        env: the shape environment it was traced in.
        replay: runs the bytecode Dynamo generated around the graph, given what to call in place
            of the graph, and the positional and keyword arguments of the call.
        side_effects: Dynamo's names for the Python objects that the bytecode changes.
        modes: Dynamo's names for the modules whose `training` flag was read.
        reads: for each guard (kind of read, Dynamo's name of the object, the key that was looked
            up): see `Read`.
        codes: all Python code that was traced.
        environment: names that traced code may have looked up in the environment.
        home: the Python module of the traced function, which names of globals start from; empty if
            it is of none.
        scopes: local and global variables of the traced frame; Dynamo's names start from them.
        scopes_of: the same for another call.
        self_name: the variable that holds the traced module; None for a plain function.
        self_among: the variable that holds it as the first of all positional arguments, as in the
            `wrapper(*args)` of a decorator; else None.
        layout_reads: what traced code asked of the layouts of tensors.
        free: the variables that the traced function closes over.
        met: by name of an argument, another name in Dynamo's words that may refer to the same
            object.
        known: the fake tensors of buffers whose numbers the trace knew.
        decided: further assumptions besides those of `env`: branches on tensors that follow from
            sizes alone.
        sides: of the branches on what tensors hold.
    """

    module: fx.GraphModule
    env: ShapeEnv
    replay: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
    side_effects: tuple[str, ...]
    modes: tuple[str, ...]
    reads: tuple[tuple[Read, str, Any], ...]
    codes: frozenset[types.CodeType]
    environment: frozenset[str]
    home: str
    scopes: Mapping[str, Mapping[str, Any]]
    scopes_of: Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Mapping[str, Any]]]
    self_name: str | None
    self_among: str | None
    layout_reads: LayoutReads
    free: tuple[str, ...]
    met: Mapping[str, str]
    known: Sequence[torch.Tensor]
    decided: Sequence[Condition]
    sides: tuple[bool, ...]

    def plain_name(self, name: str) -> str:
        """`layers.0.weight` for Dynamo's `L['self']._modules['layers']._modules['0'].weight`.

        Names start at the traced module, or at a variable of a plain function.
        """
        return plain_name(name, self.self_name)

    def name_of(self, placeholder: fx.Node) -> str:
        """The plain name of what a placeholder stands for."""
        return input_name(placeholder, self.self_name)

    def object_named(self, name: str) -> Any:
        """The object behind one of Dynamo's names, such as `L['self'].hist`; None if unknown."""
        return object_named(name, self.scopes)

    def objects_changed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The Python objects that the bytecode changes in a call, by Dynamo's names."""
        scopes = self.scopes_of(args, kwargs)
        return {name: object_named(name, scopes) for name in self.side_effects}

    def size_source(self, placeholder: fx.Node) -> tuple[Any, int] | None:
        """The (tensor, dimension) that an integer placeholder is the size of."""
        return self._dimension(getattr(placeholder, "_dynamo_source", None))

    def symbol_sources(self) -> Iterator[tuple[sympy.Symbol, tuple[Any, int]]]:
        """The (tensor, dimension) each symbol was made for, whether the graph uses it or not."""
        for symbol, sources in self.env.var_to_sources.items():
            for source in sources:
                found = self._dimension(source)
                if found is not None:
                    yield symbol, found

    def content_symbols(self) -> frozenset[sympy.Symbol]:
        """The symbols that stand for the integer a tensor of no dimensions holds, for no size."""
        from torch._dynamo.source import CallMethodItemSource

        return frozenset(
            symbol
            for symbol, sources in self.env.var_to_sources.items()
            if any(isinstance(source, CallMethodItemSource) for source in sources)
        )

    def _dimension(self, source: Any) -> tuple[Any, int] | None:
        base, index = getattr(source, "base", None), getattr(source, "idx", None)
        prop = getattr(source, "prop", None)
        if base is None or index is None or getattr(prop, "name", "") != "SIZE":
            return None
        return self.object_named(base.name), index


def plain_name(name: str, self_name: str | None) -> str:
    """One of Dynamo's names as a user would write it; the variable `self_name` is left out."""
    plain = re.sub(r"\._(?:modules|parameters|buffers)\['([^']+)'\]", r".\1", name)
    if found := re.fullmatch(r"type\((.+)\)", plain):
        return f"type({plain_name(found[1], self_name) or 'self'})"
    if self_name is not None:
        plain = re.sub(rf"^L\['{self_name}'\]\.?", "", plain)
    return re.sub(r"^[LG]\['(\w+)'\]", r"\1", plain)


def input_name(placeholder: fx.Node, self_name: str | None = None) -> str:
    """Return the plain name of what a graph's input stands for."""
    source = getattr(placeholder, "_dynamo_source", None)
    return placeholder.name if source is None else plain_name(source.name, self_name)


class NoGraph(Exception):
    """The traced function contains no tensor operation."""


def full_graph(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: Sequence[tuple[torch.Tensor, int, int, int]],
    blocks: Mapping[int, torch.nn.Module],
    alike: Alike,
    passed: Mapping[int, tuple[str, object]],
    buffers: Mapping[int, torch.Tensor],
    sides: Sides | None,
) -> FullGraph:
    """Trace one call of `fn` into one graph.

    `torch._dynamo.convert_frame.fullgraph_capture` (2.10 and later) is the capture that torch's own
    ahead-of-time front ends use: no guards are built and no code is cached, so nothing of the
    caller's Dynamo state is touched.

    `dynamic` lists (tensor, dimension, low, high). A call of one of `blocks`, modules by identity,
    is not traced where it repeats another; `alike` says what of one stands where in another.
    `passed` has the caller's objects that there are stand-ins of, with their names, by identity.
    `buffers` are those whose numbers the trace may know, by identity. `sides` decides branches on
    what tensors hold; None if these are to fail.

    Raises:
        NoGraph: nothing to compile.
        Exception: whatever Dynamo raises; `dynamo_errors` reads it.
    """
    import torch._dynamo as dynamo
    from torch._dynamo import convert_frame

    traced, owner = convert_frame.get_traced_fn(fn)
    self_name, self_among = _self_variables(traced.__code__, owner)
    for tensor, dim, low, high in dynamic:
        dynamo.mark_dynamic(tensor, dim, min=low, max=high)
    with (
        _leaving_nothing_behind(),
        tracing_as_eager(),
        passing_idle_branches(sides) as decided,
        knowing(buffers) as known,
        recording_side_effects() as side_effects,
        recording_layout_reads() as layout_reads,
        recording_other_names() as others,
        recording_passed_objects(passed, self_name) as met,
        tracing_repeats_once(blocks, alike, layout_reads, others) as repeats,
    ):
        captured = convert_frame.fullgraph_capture(fn, args, kwargs)
        output = captured.graph_capture_output
        globals_ = {**traced.__globals__, **output.f_globals}
    if captured.backend_input is None:
        raise NoGraph
    log.debug("%d calls of blocks repeat others", repeats.repeated)

    def scopes_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {"L": convert_frame._get_frame(fn, args, kwargs).locals, "G": globals_}

    env = captured.backend_input.fake_mode.shape_env
    assert env is not None  # Dynamo always makes one
    scopes = scopes_of(args, kwargs)
    return FullGraph(
        module=captured.backend_input.graph_module,
        env=env,
        replay=_replay_of(captured, globals_, owner),
        side_effects=tuple(lasting(side_effects, output.traced_code)),
        modes=modes_read(output.output_graph),
        reads=others.of_objects(scopes).under_all_names(reads(output.output_graph, scopes)),
        codes=frozenset(output.traced_code),
        environment=frozenset(environment_names(output.traced_code)),
        home=str(traced.__globals__.get("__name__", "")),
        scopes=scopes,
        scopes_of=scopes_of,
        self_name=self_name,
        self_among=self_among,
        layout_reads=layout_reads,
        free=traced.__code__.co_freevars,
        met=met,
        known=known,
        decided=decided,
        sides=() if sides is None else sides.taken,
    )


def _self_variables(code: types.CodeType, owner: object | None) -> tuple[str | None, str | None]:
    """Find the variable that holds the traced module, and the one that holds it among others."""
    first = None if owner is None else code.co_varnames[0]
    return (first, None) if code.co_argcount else (None, first)


@contextlib.contextmanager
def _leaving_nothing_behind() -> Iterator[None]:
    """Leave neither names nor references of a trace, nor logs of what its error says anyway."""
    from torch._dynamo.utils import get_metrics_context

    with (
        names_taken_back(),
        forgetting_real_tensors(),
        failures_unlogged(),
        get_metrics_context(),  # of its own
    ):
        yield


def _replay_of(
    captured: CaptureOutput, globals_: Mapping[str, Any], owner: object | None
) -> Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]:
    """Make the function that runs the bytecode around a captured graph."""

    def replay(graph: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # 2.11 looks for builtins, too, among the globals that the bytecode needs.
        names = {**vars(builtins), **globals_}
        callable_ = captured.forward_callable(compiled_fn=graph, extra_globals=names)
        return callable_(*(args if owner is None else (owner, *args)), **kwargs)

    return replay
