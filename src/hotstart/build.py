"""The stages of a build, composed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from hotstart import assemble, faults
from hotstart.calls import Call
from hotstart.capture.weights import WeightTable, weights_on
from hotstart.events import Clock
from hotstart.model import Model
from hotstart.options import Options
from hotstart.program import OnMiss, Program
from hotstart.records.artifact import Artifact
from hotstart.runtime.bind import bind
from hotstart.saving.examples import kept_example
from hotstart.specialize.call import make_contract, make_requirements, not_captured, trace_call
from hotstart.specialize.units import Kept, Units, compile_call, units_of


def build_program(
    model: Model,
    calls: Mapping[str, Call],
    split_on: Any,
    options: Options,
    on_miss: OnMiss,
    kept: Kept | None = None,
) -> Program:
    """Run the stages. Pieces that are `kept` are not compiled again; others are, and kept then."""
    clock = Clock(options.on_event)
    debug_dir = assemble.debug_folder(options)
    compiler = assemble.make_compiler(options, clock)
    compiler.warm_up()
    units = Units(kept)
    try:
        with contextlib.ExitStack() as stand_ins:
            with clock.phase("capture"), faults.typed(not_captured):
                device = assemble.device_of(options)
                index = stand_ins.enter_context(weights_on(model, device))
                weights = WeightTable(index)
                traced = [
                    trace_call(index, name, call, weights, options, split_on, clock)
                    for name, call in calls.items()
                ]
                requirements = make_requirements(index, weights, traced)
                contracts = [make_contract(model, call) for call in traced]
            with faults.typed(faults.defect("compiling")):
                compiled = [
                    compile_call(call, units, compiler, options.splits, clock) for call in traced
                ]
    finally:
        compiler.close()
    with clock.phase("stitch"):
        made = tuple(
            assemble.stitch_call(call, parts, requirements, contract)
            for call, parts, contract in zip(traced, compiled, contracts, strict=True)
        )
    with clock.phase("fingerprint"):
        running = units_of(part for parts in compiled for part in parts)
        fit = assemble.make_fingerprint(traced, running, compiler)
    pieces = assemble.piece_infos(traced)
    done = assemble.make_report(clock, pieces, running, units).reproducible()
    artifact = Artifact(
        requirements,
        made,
        tuple(running.values()),
        tuple(weights.captured.items()),
        pieces,
        fit,
        done,
    )
    shown = assemble.in_debug_files(artifact, debug_dir)
    with clock.phase("bind"):
        binding = bind(shown, model)
    report = assemble.make_report(clock, pieces, running, units)
    examples = {
        name: (kept_example(contract, calls[name].args, calls[name].kwargs or {}),)
        for name, contract in zip(calls, contracts, strict=True)
    }
    program = Program(artifact, model, binding, report, on_miss, examples)
    if debug_dir is not None:
        assemble.write_debug_files(debug_dir, traced, shown, program.entry_code)
    return program
