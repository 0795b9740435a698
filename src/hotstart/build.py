"""The stages of a build, composed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from hotstart import assemble, build_report, debug_files, faults
from hotstart.capture.described import DescribedCall, device_of
from hotstart.capture.naming import naming_of
from hotstart.capture.weights import WeightTable, weights_on
from hotstart.compilers.choose import make_compiler
from hotstart.compilers.workers import workers_of
from hotstart.events import Clock
from hotstart.model import Model
from hotstart.options import Options
from hotstart.program import OnMiss, Program
from hotstart.records.artifact import Artifact
from hotstart.runtime.bind import bind
from hotstart.runtime.weights import weights_of
from hotstart.saving.examples import kept_example
from hotstart.specialize.compile import compile_calls, units_of
from hotstart.specialize.contract import make_contract, make_requirements
from hotstart.specialize.kept import Kept
from hotstart.specialize.trace import not_captured, trace_calls
from hotstart.specialize.units import Units


def build_program(
    model: Model,
    calls: Sequence[DescribedCall],
    split_on: Any,
    options: Options,
    on_miss: OnMiss,
    kept: Kept | None = None,
) -> Program:
    """Run the stages. Pieces that are `kept` are not compiled again; others are, and kept then."""
    clock = Clock(options.on_event)
    debug_dir = debug_files.debug_folder(options)
    compiler = make_compiler(options, clock)
    compiler.warm_up()
    workers = workers_of(options)
    units = Units(compiler, clock, kept, workers)
    try:
        if kept is None:  # else there may be nothing to compile
            workers.start_early(model)
        with contextlib.ExitStack() as stand_ins:
            with clock.phase("capture"), faults.typed(not_captured):
                index = stand_ins.enter_context(weights_on(model, device_of(options)))
                weights = WeightTable(index)
                traced = trace_calls(index, calls, weights, options, split_on, clock)
                requirements = make_requirements(index, weights, traced)
                naming = naming_of(index)
            with faults.typed(faults.defect("compiling")):
                compiled = compile_calls(traced, units)
    finally:
        workers.close()
        compiler.close()
    with clock.phase("stitch"):
        stitched = tuple(
            assemble.stitch_call(call, requirements, make_contract(model, call.traced))
            for call in compiled
        )
    with clock.phase("native"):
        native, not_native = assemble.make_native(
            requirements, stitched, units_of(compiled), options, kept
        )
    with clock.phase("fingerprint"):
        fingerprint = assemble.make_fingerprint(
            traced, units_of(compiled), compiler, options.target
        )
    pieces = build_report.piece_infos(traced)
    made = build_report.list_made(pieces, compiled, not_native, workers.totals())
    artifact = Artifact(
        requirements=requirements,
        calls=stitched,
        units=units_of(compiled),
        captured=tuple(weights.captured.items()),
        pieces=pieces,
        fingerprint=fingerprint,
        report=made.reproducible(),
        naming=naming,
        native=native,
    )
    shown = debug_files.in_debug_files(artifact, debug_dir)
    with clock.phase("bind"):
        binding = bind(shown, weights_of(model, shown))
    examples = {
        call.name: (kept_example(call.contract, given.call.args, given.call.kwargs or {}),)
        for call, given in zip(stitched, calls, strict=True)
    }
    program = Program(artifact, model, binding, made, clock, on_miss, examples)
    if debug_dir is not None:
        debug_files.write_debug_files(debug_dir, traced, shown, program.entry_code)
    return program
