"""The stages of a build, composed."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hotstart import assemble, build_details, debug_files, faults
from hotstart._torch.dynamo.compile_lock import compile_lock
from hotstart._torch.structured_trace import trace_artifact
from hotstart.capture.described import DescribedCall, device_of
from hotstart.capture.weight_table import traceable
from hotstart.compilers.choose import make_compiler, require_one_run_here
from hotstart.compilers.workers.outcome import WorkerPool
from hotstart.compilers.workers.pool import workers_of
from hotstart.events import Clock
from hotstart.misses import OnMiss
from hotstart.model import Model
from hotstart.native.build import Libraries
from hotstart.options import Options
from hotstart.program import ONE_TARGET, Program, Targets
from hotstart.records.artifact import Artifact
from hotstart.runtime.bind import bind
from hotstart.runtime.bind_groups import Groups
from hotstart.runtime.weights.model_weights import weights_of
from hotstart.saving.examples import Example, kept_example
from hotstart.specialize.compile import CompiledCall, begin_calls, compile_calls
from hotstart.specialize.contract import make_contract
from hotstart.specialize.piece_store import PieceStore
from hotstart.specialize.trace import not_captured
from hotstart.specialize.trace_model import TracedModel, trace_model
from hotstart.specialize.unit_table import Units
from hotstart.targets import TargetName

_RARELY = (200_000, 20, 100)
"""Thresholds of Python's garbage collection while a program is built."""


@contextlib.contextmanager
def _rarely_collected() -> Iterator[None]:
    """Have Python collect garbage less often.

    A trace makes millions of objects, most of which stay. Collections as often as usual took a
    fifth of the time of capturing a deep model.
    """
    before = gc.get_threshold()
    if before[0] == 0 or before == _RARELY:  # never, or another thread builds
        yield
        return
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_rarely_collected()
def build_program(
    model: Model,
    calls: Sequence[DescribedCall],
    split_on: Any,
    options: Options,
    on_miss: OnMiss,
    kept: Mapping[TargetName, PieceStore],
    clock: Clock,
) -> Program:
    """Run the stages: compile and assemble for each target, all else once.

    What another thread of the process compiles waits, and is waited for.

    Pieces that are `kept` for a target are not compiled again; others are, and kept then. The clock
    is told of the phases.

    Raises:
        OptionsError: this machine does not build for the targets.
    """
    with clock.phase("start"):
        require_one_run_here(options.targets)
        debug_dir = debug_files.debug_folder(options)
    with _tools(model, options, kept, clock) as (units, workers):
        traced, compiled = _compiled(model, calls, split_on, options, units, clock)
    with clock.phase("stitch"):
        contracts = [make_contract(model, call) for call in traced.calls]
    common = assemble.Common(traced, contracts, workers.totals())
    libraries = Libraries()
    made = [
        assemble.make_artifact(
            common, compiled[t], each.compiler, t, options, libraries, kept.get(t), clock
        )
        for t, each in units.items()
    ]
    (best, summary), *rest = made  # this machine runs the best
    others = [artifact for artifact, _ in rest]
    with clock.phase("report"):
        details = build_details.details_of(traced.calls, traced.requirements, best.units)
    shown = debug_files.in_debug_files(best, debug_dir)
    with clock.phase("bind"):
        groups = Groups(shown.requirements, model, traced=traced.weights.groups.here)
        binding = bind(shown, weights_of(model, shown), groups=groups)
        examples = _kept_examples(best, calls)
        targets = Targets(options.targets, lambda: others) if others else ONE_TARGET
        program = Program(best, model, binding, summary, clock, on_miss, examples, targets, details)
    trace_artifact("hotstart_entry", lambda: program.entry_code)
    trace_artifact("hotstart_report", lambda: str(program.report))
    if debug_dir is not None:
        with clock.phase("debug files"):
            of_best = compiled[options.targets[0]]
            debug_files.write_debug_files(debug_dir, of_best, shown, program.entry_code)
    return program


@contextlib.contextmanager
def _tools(
    model: Model, options: Options, kept: Mapping[TargetName, PieceStore], clock: Clock
) -> Iterator[tuple[dict[TargetName, Units], WorkerPool]]:
    """Start compilers and workers, and close them in the end; units are made by them."""
    with clock.phase("start"):
        compilers = {target: make_compiler(options, target, clock) for target in options.targets}
        workers = workers_of(options, clock)
        compilers[options.targets[0]].warm_up()
    try:
        if not kept:  # else there may be nothing to compile
            with clock.phase("start"):
                workers.start_early(model)
        yield {t: Units(c, clock, kept.get(t), workers, t) for t, c in compilers.items()}, workers
    finally:
        with clock.phase("stop"):
            workers.close()
            for compiler in compilers.values():
                compiler.close()


def _compiled(
    model: Model,
    calls: Sequence[DescribedCall],
    split_on: Any,
    options: Options,
    units: Mapping[TargetName, Units],
    clock: Clock,
) -> tuple[TracedModel, dict[TargetName, list[CompiledCall]]]:
    """Trace the calls once, and compile them for each target, while no other thread compiles."""
    with contextlib.ExitStack() as alone:
        with clock.phase("capture"), faults.typed(not_captured):
            alone.enter_context(compile_lock())
            index = alone.enter_context(traceable(model, device_of(options)))
            traced = trace_model(index, calls, options, split_on, clock)
        with clock.phase("jobs"), faults.typed(faults.defect("compiling")):
            # Jobs for all targets are known to workers before the first is asked for.
            jobs = {target: begin_calls(traced.calls, each) for target, each in units.items()}
            return traced, {t: compile_calls(jobs[t], each) for t, each in units.items()}


def _kept_examples(
    artifact: Artifact, calls: Sequence[DescribedCall]
) -> dict[str, tuple[Example, ...]]:
    """Keep the example of each call, for the check at save."""
    return {
        call.name: (kept_example(call.contract, given.call.args, given.call.kwargs or {}),)
        for call, given in zip(artifact.calls, calls, strict=True)
    }
