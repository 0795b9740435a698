"""`torch.compile(model, backend="hotstart")`: Dynamo captures and guards, hotstart does the rest.

Every graph that Dynamo makes goes through the stages of a build, from partition on. There is no
contract of arguments to check: Dynamo's guards are the contract, and what compiling assumes about
a size becomes a guard, so that a call of another size is compiled for.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import fx

from hotstart import assemble, build_report, debug_files
from hotstart._torch.dynamo.graph_inputs import compile_id, guard_on, traced_environment
from hotstart._torch.graphs.symbols import axis_symbol
from hotstart._torch.structured_trace import trace_artifact
from hotstart.cache.store import open_store
from hotstart.cache.stored_pieces import StoredPieces
from hotstart.capture.arguments import Arguments
from hotstart.capture.dynamo_graph import FlatGraph, capture_graph, writable
from hotstart.compilers.choose import make_compiler, require_one_run_here
from hotstart.compilers.workers.pool import workers_of
from hotstart.errors import OptionsError, RangeError
from hotstart.events import Clock, Event
from hotstart.native.build import Libraries
from hotstart.options import Options
from hotstart.partition.operator_names import known_among
from hotstart.records.artifact import Artifact, Requirements, StitchedCall
from hotstart.records.dims import variants
from hotstart.records.report import Packed, Report
from hotstart.runtime.bind import bind
from hotstart.runtime.entry.flat import Apart, FlatCall, bind_flat, flat_source
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.specialize.compile import begin_calls, compile_calls, units_of
from hotstart.specialize.contract import make_contract
from hotstart.specialize.parts import VariantPart
from hotstart.specialize.split import Declaration
from hotstart.specialize.trace import CutGraph, TracedCall, TracedPart, cut_graph, plan_of
from hotstart.specialize.unit_table import Units

if TYPE_CHECKING:
    import sympy

log = logging.getLogger("hotstart")

OWN = ("split_on", "cache")
"""Options that are no fields of `Options`."""

NOT_TAKEN = frozenset({"on_miss", "device"})
"""Fields of `Options` that Dynamo leaves no room for: a call that no graph fits is compiled for."""


def hotstart(
    module: fx.GraphModule,
    inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> FlatCall:
    """Compile one graph of Dynamo's for inference.

    `torch.compile` finds this function by the name `"hotstart"`, an entry point of the group
    `torch_dynamo_backends`. Dynamo raises whatever is raised here as the `inner_exception` of a
    `BackendCompilerFailed`.

    Args:
        module: the graph.
        inputs: its inputs in the call at hand; what is needed of them is in the graph.
        options: `split_on` and `cache` as `hotstart.compile` takes them, and fields of
            `hotstart.Options` by name. Pieces are kept in a cache, and no programs.
        mode: not supported.

    Returns:
        A function of the graph's inputs.

    Raises:
        OptionsError: an option that does not exist, or makes no sense.
        CaptureError: the graph is for training, or has inputs that are no plain tensors.
        PartitionError: `split_on` holds what names no operator.
        CompileError: a piece does not compile.
        StoreError: the cache does not have what it must have, or cannot be used and has to be.
    """
    split_on, cache, common = _read(options or {}, mode)
    kept = StoredPieces(open_store(cache), *common.targets) if cache is not None else None
    learned: list[sympy.Basic] = []
    while True:
        try:
            made = _compiled(module, inputs, split_on, common, kept, learned)
        except RangeError as error:
            learned.append(_guard_on(error, learned))
            continue
        if kept is not None:
            kept.share()
        return made


def _read(options: Mapping[str, Any], mode: str | None) -> tuple[Any, Any, Options]:
    """Read options: where to split, which need not be in every graph, the cache, all others."""
    if mode is not None:
        raise OptionsError(f"mode: got {mode!r}; the backend 'hotstart' takes options, and no mode")
    taken = {*OWN, *(field.name for field in dataclasses.fields(Options))} - NOT_TAKEN
    unknown = sorted(set(options) - taken)
    if unknown:
        raise OptionsError(
            f"options: got {', '.join(map(repr, unknown))}, takes {', '.join(sorted(taken))}"
        )
    rest = {name: value for name, value in options.items() if name not in OWN}
    common = Options(**rest)
    if len(common.targets) > 1:
        raise OptionsError(
            f"target: got {common.target!r}; the backend 'hotstart' takes one, as its functions "
            "run in this process and are not saved\ndo: take the best that this machine has"
        )
    require_one_run_here(common.targets)
    return options.get("split_on", "auto"), options.get("cache"), common


def _guard_on(error: RangeError, learned: Sequence[sympy.Basic]) -> sympy.Basic:
    """Make what compiling assumed about sizes a guard of Dynamo's; the guard's condition."""
    env = traced_environment()
    condition: Any = error.expr
    if env is None or condition is None:
        raise error
    symbols = {axis_symbol(str(symbol)): symbol for symbol in env.var_to_range}
    condition = condition.xreplace(symbols)
    # It was assumed for the sizes at hand, so it holds for them; and it is assumed only once.
    if condition in learned or not guard_on(env, condition):
        raise error
    log.info("[%s] guards on %s", compile_id(), error.condition)
    return condition


def _compiled(
    module: fx.GraphModule,
    inputs: Sequence[Any],
    split_on: Any,
    options: Options,
    kept: StoredPieces | None,
    learned: Sequence[sympy.Basic],
) -> FlatCall:
    """The function of a graph, built from what is known about its sizes now."""
    clock = Clock(options.on_event)
    with clock.phase("start"):
        compiler = make_compiler(options, options.targets[0], clock)
    debug_dir = _debug_dir(options)
    with clock.phase("capture"):
        found = capture_graph(module, learned)
    call = _traced(found, split_on, clock)
    requirements = Requirements(weights=(), unread=(), modes=(), kinds=(), modules=())

    if kept is None:  # else there may be nothing to compile
        compiler.warm_up()
    workers = workers_of(options, clock)
    try:
        with clock.phase("jobs"):
            made_by = Units(compiler, clock, kept, workers, options.targets[0])
            (compiled,) = compile_calls(begin_calls([call], made_by), made_by)
    finally:
        with clock.phase("stop"):
            workers.close()
            compiler.close()
    with clock.phase("stitch"):
        made = assemble.stitch_call(compiled, requirements, make_contract(module, call))
    with clock.phase("native"):
        units = units_of([compiled])
        native, not_native = assemble.make_native(
            requirements, (made,), units, options, Libraries(), kept, options.targets[0]
        )
    infos = build_report.piece_infos([call])
    artifact = Artifact(
        requirements, (made,), units, (), infos, fingerprint={}, report={}, native=native
    )
    shown = debug_files.in_debug_files(artifact, debug_dir)
    with clock.phase("bind"):
        (run,) = bind(shown, weights_of(module, shown))()
        entry, function = _entry(found, inputs, run, made)
    if debug_dir is not None:
        debug_files.write_debug_files(debug_dir, [compiled], shown, entry)
    listed = build_report.list_made(infos, [compiled], not_native, workers.totals())
    report = Report.of(listed, clock, Packed())
    _tell(clock, report, call.parts[0].part.variant.name)
    return function


def _traced(found: FlatGraph, split_on: Any, clock: Clock) -> TracedCall:
    """A captured graph, cut, that serves all sizes Dynamo calls it with."""
    names = known_among(split_on, found.captured.graph.nodes)
    plan = plan_of(*cut_graph(found.captured, names, found.hints, clock), "", clock)
    arguments = Arguments((), found.tensors, found.axes, found.hints)
    graph = CutGraph(found.captured, plan, ())
    declaration = Declaration(found.axes, found.hints, limit=0)
    (variant,) = variants(found.axes)
    part = VariantPart(variant, variant.choices, found.hints)
    return TracedCall("", "", arguments, declaration, (TracedPart(part, graph),))


def _entry(
    found: FlatGraph, inputs: Sequence[Any], run: FlatCall, made: StitchedCall
) -> tuple[str, FlatCall]:
    """The source of the function that Dynamo calls, and the function."""
    slots, written = writable(found, inputs)
    watched = [found.arguments[slot] for slot in slots]
    tensors = [inputs[found.inputs.index(name)] for name in watched]
    apart = Apart([found.tensors[slot].path for slot in slots], tensors, written)
    source = flat_source(found.inputs, found.sizes, found.arguments, watched)
    filename = made.stitched[0].code.filename.replace("stitched", "flat")
    return source, bind_flat(source, filename, run, apart)


def _debug_dir(options: Options) -> Path | None:
    """A folder for each graph, named after Dynamo's compile, such as `0_1`."""
    if options.debug_dir is None:
        return None
    return Path(options.debug_dir) / compile_id().replace("/", "_")


def _tell(clock: Clock, report: Report, variant: str) -> None:
    """Say what was compiled: to the listener, to the log, and to torch's structured trace."""
    name = compile_id()
    loaded = sum(unit.action == "loaded" for unit in report.units)
    detail = {
        "pieces": report.pieces,
        "unique": report.unique,
        "loaded": loaded,
        "reused": report.reused,
    }
    compiled = report.unique - loaded
    counts = f"{compiled} compiled, {loaded} loaded, {report.reused} reused"
    log.info("[%s] compiled in %.1f s: %d pieces, %s", name, report.wall_s, report.pieces, counts)
    log.debug("[%s] %s: %s", name, variant, report)
    trace_artifact("hotstart_report", lambda: str(report))
    told = {"variant": variant, **{key: str(count) for key, count in detail.items()}}
    clock.emit(Event("build_finished", name, report.wall_s, detail=told))
