"""`hotstart.compile`: the stages, composed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from hotstart import _build as build
from hotstart._trace import make_contract, make_requirements, trace_call
from hotstart.calls import Call, requested_calls
from hotstart.capture import WeightTable, weights_on
from hotstart.events import Clock, Event
from hotstart.ir import Artifact
from hotstart.loading import bind
from hotstart.options import Options
from hotstart.runtime.program import OnMiss, Program
from hotstart.tensors import Model


def compile(
    model: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    calls: Mapping[str, Call] | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    jobs: int | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Program:
    """Compile a model for inference, ahead of time, for every size that is declared.

    Args:
        model: a module, which may be on the meta device, or a function.
        args: positional example inputs: real, fake or meta tensors, and whatever else a call
            passes. Contents of tensors do not matter. What is no tensor becomes part of the
            contract as it is.
        kwargs: keyword example inputs.
        dynamic_shapes: by name of forward's parameter, a mapping from dimension to `hotstart.Dim`
            (or `torch.export.Dim`); nested for arguments that are containers. Dimensions of the
            same name always have the same size. All others are static.
        calls: several ways to call the model, by name, each with its own example, in place of
            `args`, `kwargs` and `dynamic_shapes`. A call of the program runs the first whose
            contract takes it.
        split_on: where the graph is cut. `"auto"` cuts at repeated blocks, such as transformer
            layers; a list of operators, by name or the operators themselves, cuts at those; a list
            with `"auto"` in it does both.
        options: see `hotstart.Options`.
        jobs: how many C++ compilers run at a time. Default: by cores and memory.
        on_event: called with a `hotstart.events.Event` as the build goes on.

    Returns:
        A program that gives the same results as the model, without autograd.

    Raises:
        CaptureError: the model cannot be captured as one graph.
        RangeError: the model or the compiler decides by size in more ways than
            `options.splits` allows for, or works for some of the declared sizes only.
        PartitionError: the graph cannot be cut as asked.
        CompileError: a piece does not compile.
        OptionsError: an argument makes no sense.
    """
    options = options or Options()
    wanted = requested_calls(Call(args=args, kwargs=kwargs, dynamic_shapes=dynamic_shapes), calls)
    clock = Clock(on_event)
    compiler = build.make_compiler(options, jobs)
    compiler.warm_up()
    units = build.Units()
    try:
        with contextlib.ExitStack() as stand_ins:
            with clock.phase("capture"):
                stand_ins.enter_context(weights_on(model, torch.device(options.device)))
                weights = WeightTable(model)
                traced = [
                    trace_call(model, name, call, weights, options, split_on, clock)
                    for name, call in wanted.items()
                ]
                requirements = make_requirements(model, weights, traced)
                contracts = [make_contract(model, call) for call in traced]
            compiled = [
                build.compile_call(call, units, compiler, options.splits, clock) for call in traced
            ]
    finally:
        compiler.close()
    debug_dir = Path(options.debug_dir) if options.debug_dir is not None else None
    with clock.phase("stitch"):
        made = tuple(
            build.stitch_call(call, parts, requirements, contract, debug_dir)
            for call, parts, contract in zip(traced, compiled, contracts, strict=True)
        )
    with clock.phase("fingerprint"):
        fit = build.make_fingerprint(model, traced, units, compiler)
    artifact = Artifact(
        requirements, made, units.by_key, weights.captured, build.piece_infos(traced), fit, {}
    )
    with clock.phase("bind"):
        binding = bind(artifact, model)
    report = build.make_report(clock, artifact, units)
    artifact = replace(artifact, report=report.reproducible())

    def compile_for(target: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        return compile(
            target, args, kwargs, split_on=split_on, options=options, jobs=jobs, on_event=on_event
        )

    on_miss = OnMiss(options.on_miss, compile_for)
    program = Program(artifact, model, binding, report, on_miss)
    if debug_dir is not None:
        build.write_debug_files(debug_dir, traced, artifact, program.entry_code)
    return program
