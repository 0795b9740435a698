"""The stages of a build, composed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from hotstart import _build as build
from hotstart import faults
from hotstart._trace import make_contract, make_requirements, not_captured, trace_call
from hotstart._units import Kept, Units, compile_call, units_of
from hotstart.calls import Call
from hotstart.capture.weights import WeightTable, weights_on
from hotstart.events import Clock, Event
from hotstart.examples import kept_example
from hotstart.ir import Artifact
from hotstart.keys.records import Seen
from hotstart.loading import bind
from hotstart.options import Options
from hotstart.runtime.program import OnMiss, Program
from hotstart.tensors import Model


def build_program(
    model: Model,
    calls: Mapping[str, Call],
    split_on: Any,
    options: Options,
    jobs: int | None,
    on_event: Callable[[Event], None] | None,
    kept: Kept | None = None,
) -> tuple[Program, tuple[Seen, ...]]:
    """Run the stages. Pieces that are `kept` are not compiled again; those that are compiled are.

    Returns:
        The program, and what traces found outside of the model's modules.
    """
    clock = Clock(on_event)
    debug_dir = build.debug_folder(options)
    compiler = build.make_compiler(options, jobs, clock)
    compiler.warm_up()
    units = Units(kept)
    try:
        with contextlib.ExitStack() as stand_ins:
            with clock.phase("capture"), faults.typed(not_captured):
                stand_ins.enter_context(weights_on(model, build.device_of(options)))
                weights = WeightTable(model)
                traced = [
                    trace_call(model, name, call, weights, options, split_on, clock)
                    for name, call in calls.items()
                ]
                requirements = make_requirements(model, weights, traced)
                contracts = [make_contract(model, call) for call in traced]
            with faults.typed(faults.defect("compiling")):
                compiled = [
                    compile_call(call, units, compiler, options.splits, clock) for call in traced
                ]
    finally:
        compiler.close()
    with clock.phase("stitch"):
        made = tuple(
            build.stitch_call(call, parts, requirements, contract, debug_dir)
            for call, parts, contract in zip(traced, compiled, contracts, strict=True)
        )
    with clock.phase("fingerprint"):
        running = units_of(part for parts in compiled for part in parts)
        fit = build.make_fingerprint(traced, running, compiler)
    artifact = Artifact(
        requirements, made, running, weights.captured, build.piece_infos(traced), fit, {}
    )
    with clock.phase("bind"):
        binding = bind(artifact, model)
    report = build.make_report(clock, artifact, units)
    artifact = replace(artifact, report=report.reproducible())

    def compile_for(target: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        wanted = {"": Call(args=args, kwargs=kwargs)}
        return build_program(target, wanted, split_on, options, jobs, on_event)[0]

    on_miss = OnMiss(options.on_miss, compile_for)
    examples = {
        name: (kept_example(contract, calls[name].args, calls[name].kwargs or {}),)
        for name, contract in zip(calls, contracts, strict=True)
    }
    program = Program(artifact, model, binding, report, on_miss, examples)
    if debug_dir is not None:
        build.write_debug_files(debug_dir, traced, artifact, program.entry_code)
    return program, requirements.seen
