"""Trace a call with Dynamo into one full graph."""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import logging
import re
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from hotstart._torch.blocks.repeats import Alike, tracing_repeats_once
from hotstart._torch.dynamo.as_called import operators_as_called
from hotstart._torch.dynamo.class_names import knowing_modules_of_classes
from hotstart._torch.dynamo.decided_branches import going_on_where_all_is_decided
from hotstart._torch.dynamo.guards import Read, environment_names, modes_read, object_named, reads
from hotstart._torch.dynamo.idle_branches import passing_idle_branches
from hotstart._torch.dynamo.known_buffers import knowing
from hotstart._torch.dynamo.layout_reads import LayoutReads, recording_layout_reads
from hotstart._torch.dynamo.left_generators import refusing_left_generators
from hotstart._torch.dynamo.numbers_read import (
    numbers_of_weights_unknown,
    reading_lists,
    reading_numbers,
)
from hotstart._torch.dynamo.other_names import OtherNames, recording_other_names
from hotstart._torch.dynamo.passed_objects import recording_passed_objects
from hotstart._torch.dynamo.plain_sizes import sizes_of_any_operator
from hotstart._torch.dynamo.recurrent import recurrent_of_any_length
from hotstart._torch.dynamo.text_of_values import refusing_text_of_values
from hotstart._torch.dynamo.trace_globals import names_taken_back
from hotstart._torch.graphs.source_lines import guards_name_users_lines
from hotstart._torch.graphs.symbols import (
    Condition,
    forgetting_real_tensors,
    sizes_that_may_be_zero,
    without_size_assumptions,
)
from hotstart._torch.inductor.composites import composites_of_any_size
from hotstart._torch.inductor.sizes import (
    convolutions_of_any_batch,
    decompositions_of_any_size,
)

if TYPE_CHECKING:
    import sympy
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
) -> FullGraph:
    """Trace one call of `fn` into one graph.

    `torch._dynamo.convert_frame.fullgraph_capture` (2.10 and later) is the capture that torch's own
    ahead-of-time front ends use: no guards are built and no code is cached, so nothing of the
    caller's Dynamo state is touched.

    `dynamic` lists (tensor, dimension, low, high). A call of one of `blocks`, modules by identity,
    is not traced where it repeats another; `alike` says what of one stands where in another.
    `passed` has the caller's objects that there are stand-ins of, with their names, by identity.
    `buffers` are those whose numbers the trace may know, by identity.

    Raises:
        NoGraph: nothing to compile.
        Exception: whatever Dynamo raises; `dynamo_errors` reads it.
    """
    import torch._dynamo as dynamo
    from torch._dynamo import convert_frame
    from torch._dynamo.utils import get_metrics_context

    traced, owner = convert_frame.get_traced_fn(fn)
    code = traced.__code__
    first = None if owner is None else code.co_varnames[0]
    self_name, self_among = (first, None) if code.co_argcount else (None, first)
    for tensor, dim, low, high in dynamic:
        dynamo.mark_dynamic(tensor, dim, min=low, max=high)
    with (
        names_taken_back(),
        dynamo.config.patch(**trace_settings()),
        torch.no_grad(),
        _reading_as_eager(),
        passing_idle_branches() as decided,
        knowing(buffers) as known,
        get_metrics_context(),
        _recording_side_effects() as side_effects,
        recording_layout_reads() as layout_reads,
        recording_other_names() as others,
        recording_passed_objects(passed, self_name) as met,
        tracing_repeats_once(blocks, alike, layout_reads, others) as repeats,
    ):
        captured = convert_frame.fullgraph_capture(fn, args, kwargs)
        output = captured.graph_capture_output
        scope = {**traced.__globals__, **output.f_globals}
    if captured.backend_input is None:
        raise NoGraph
    log.debug("%d calls of blocks repeat others", repeats.repeated)

    def replay(graph: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # 2.11 looks for builtins, too, among the globals that the bytecode needs.
        names = {**vars(builtins), **scope}
        callable_ = captured.forward_callable(compiled_fn=graph, extra_globals=names)
        return callable_(*(args if owner is None else (owner, *args)), **kwargs)

    env = captured.backend_input.fake_mode.shape_env
    assert env is not None  # Dynamo always makes one

    def scopes_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Mapping[str, Any]]:
        return {"L": convert_frame._get_frame(fn, args, kwargs).locals, "G": scope}

    scopes = scopes_of(args, kwargs)
    return FullGraph(
        module=captured.backend_input.graph_module,
        env=env,
        replay=replay,
        side_effects=tuple(_lasting(side_effects, output.traced_code)),
        modes=modes_read(output.output_graph),
        reads=tuple(_by_all_names(reads(output.output_graph, scopes), others.of_objects(scopes))),
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
    )


@contextlib.contextmanager
def _reading_as_eager() -> Iterator[None]:
    """Have Dynamo read sizes, numbers, conditions and classes as eager does, or refuse to."""
    with contextlib.ExitStack() as entered:
        for change in (
            forgetting_real_tensors,
            without_size_assumptions,
            sizes_that_may_be_zero,
            convolutions_of_any_batch,
            composites_of_any_size,
            sizes_of_any_operator,
            decompositions_of_any_size,
            reading_numbers,
            reading_lists,
            numbers_of_weights_unknown,
            going_on_where_all_is_decided,
            refusing_text_of_values,
            refusing_left_generators,
            operators_as_called,
            recurrent_of_any_length,
            knowing_modules_of_classes,
            guards_name_users_lines,
        ):
            entered.enter_context(change())
        yield


def _by_all_names(
    read: Iterable[tuple[Read, str, Any]], others: OtherNames
) -> dict[tuple[Read, str, Any], None]:
    """List the reads of a trace by every name that it reached the objects by."""
    found: dict[tuple[Read, str, Any], None] = {}
    for kind, name, key in read:
        found |= {(kind, each, key): None for each in (name, *others.of(name))}
    return found


def trace_settings() -> dict[str, Any]:
    """Settings under which Dynamo traces sizes as they are declared, and operators as written.

    `enable_dynamo_decompositions`, where there is one, makes a product and an `fma` of
    `x.addcmul_(a, b, value=2.0)` and its like: they round otherwise than eager does, and only
    Inductor registers them. Numbers that depend on contents of tensors become unbacked symbols.
    """
    import torch._dynamo.config as config

    decompositions = "enable_dynamo_decompositions"
    return {
        "assume_static_by_default": True,
        "automatic_dynamic_shapes": False,
        "specialize_int": True,
        "specialize_float": True,
        "allow_rnn": True,
        "capture_scalar_outputs": True,
        "capture_dynamic_output_shape_ops": True,
        **({decompositions: False} if hasattr(config, decompositions) else {}),
    }


def _lasting(side_effects: Sequence[str], codes: Sequence[types.CodeType]) -> Iterator[str]:
    """The side effects that outlive a call, or may.

    What torch's modules keep is which warnings were shown. Variables of outer functions have no
    name, nor has torch's stack of modes, which a `with` block in forward changes and restores.
    """
    assigns = "<unknown source>" in side_effects and any(
        step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
        for code in codes
        for step in dis.get_instructions(code)
    )
    for name in side_effects:
        if name == "<unknown source>":
            if assigns:
                yield "a variable of an outer function"
        elif not name.startswith("G['__import_torch_"):
            yield name


@contextlib.contextmanager
def _recording_side_effects() -> Iterator[list[str]]:
    """Collect the names of the Python objects a traced function changes.

    Dynamo tells them in a warning, when its policy is "warn" (2.10 and later), and nowhere else.
    """
    import torch._dynamo.config as config

    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with config.patch(side_effect_replay_policy="warn"):
            yield found
    for warning in caught:
        text = str(warning.message)
        if "side effects" in text and text.endswith("]"):
            found.extend(map(str, ast.literal_eval(text[text.rindex(": [") + 2 :])))
        # An array is a tensor in a trace.
        elif not text.startswith("To copy construct from a tensor"):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
