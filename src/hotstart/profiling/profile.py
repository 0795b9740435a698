"""Measure where the time of a call goes."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from hotstart.dtypes import dtype_of
from hotstart.errors import OptionsError
from hotstart.faults import require
from hotstart.profiling.parts import KernelProfile, PieceProfile
from hotstart.profiling.peaks import measure_peaks
from hotstart.profiling.record import Profile
from hotstart.profiling.recorder import Recorder, Spent
from hotstart.profiling.watched import WatchedParts
from hotstart.program import Program
from hotstart.records.artifact import Artifact, StitchedCall

_WARM = 3
"""Calls before those that are timed."""

Key = tuple[int | None, int]


def profile(
    program: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    call: str | None = None,
    repeats: int = 30,
) -> Profile:
    """Measure where the time of a call of a program goes: pieces, kernels and operators of torch.

    The program serves the call as ever, and is timed; then its parts are timed, in the Python form
    that every program has, whose kernels are the same. All of that runs the call some
    `2 * repeats` times: what the call writes to, it writes to each time. Nothing else should run
    on the machine.

    Args:
        program: made by `hotstart.compile`, or by `hotstart.load` where torch was imported.
        args: the arguments of the call, by position.
        kwargs: those by name.
        call: the name of the call, where a program has several.
        repeats: how many calls are timed, each way.

    Raises:
        OptionsError: this is no such program or number, or there is no call of that name.
        ContractError: the call is outside the contract.
    """
    require("program", program, Program, "a hotstart.Program; import torch before it is loaded")
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise OptionsError(f"repeats: got {repeats!r}, takes a number of calls, 1 or more")
    kwargs = {} if kwargs is None else kwargs
    recorder = Recorder()
    forms = WatchedParts(program.artifact, recorder)
    served = _timed(_function(program, call), args, kwargs, repeats)
    in_parts = _function(program.in_forms(forms), call)
    recorder.begin(counts=True)
    in_parts(*args, **kwargs)
    counted = recorder.spent
    whole, seconds = _timed_in_parts(partial(in_parts, *args, **kwargs), recorder, repeats)
    number = forms.variant_of(key[1] for key in counted)
    owner, variant = _variant(program.artifact, number)
    native = program.artifact.native
    return Profile(
        call=owner.name,
        variant=variant,
        native=native is not None and native.runs[number] is not None,
        seconds=served,
        seconds_in_parts=whole,
        pieces=tuple(_pieces(program.artifact, forms, recorder, counted, seconds)),
        peaks=measure_peaks(_dtype(program.artifact)),
        threads=torch.get_num_threads(),
        repeats=repeats,
        load=os.getloadavg()[0],
    )


def _timed_in_parts(
    call: Callable[[], object], recorder: Recorder, repeats: int
) -> tuple[float, dict[Key, float]]:
    """Time a call and its parts: typical seconds, and those of each part by place."""
    taken: list[tuple[float, dict[Key, float]]] = []
    for _ in range(repeats):
        recorder.begin(counts=False)
        started = time.perf_counter()
        call()
        whole = time.perf_counter() - started
        parts = {key: spent.nanoseconds / 1e9 for key, spent in recorder.spent.items()}
        taken.append((whole, parts))
    return middle_of(taken)


def middle_of(taken: Sequence[tuple[float, Mapping[Key, float]]]) -> tuple[float, dict[Key, float]]:
    """Average the middle half of some calls by what they took, so that parts add up to the whole.

    Medians of parts may add up to more than that of the whole.
    """
    ordered = sorted(taken, key=lambda each: each[0])
    middle = ordered[len(ordered) // 4 : len(ordered) - len(ordered) // 4]
    keys = dict.fromkeys(key for _, parts in middle for key in parts)
    means = {key: statistics.fmean(parts.get(key, 0.0) for _, parts in middle) for key in keys}
    return statistics.fmean(whole for whole, _ in middle), means


def _function(program: Program, call: str | None) -> Callable[..., Any]:
    if call is None:
        return program
    try:
        return program[call]
    except KeyError as error:
        raise OptionsError(f"call: {error.args[0]}") from None


def _timed(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], repeats: int
) -> float:
    """The median of what calls take, in seconds."""
    for _ in range(_WARM):
        function(*args, **kwargs)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _variant(artifact: Artifact, number: int) -> tuple[StitchedCall, str]:
    every = [(call, stitched) for call in artifact.calls for stitched in call.stitched]
    call, stitched = every[number]
    return call, stitched.variant.name


def _pieces(
    artifact: Artifact,
    forms: WatchedParts,
    recorder: Recorder,
    counted: Mapping[Key, Spent],
    seconds: Mapping[Key, float],
) -> list[PieceProfile]:
    infos = {piece.name: piece for piece in artifact.pieces}
    units = {unit.key: unit for unit in artifact.units}
    parts: dict[int | None, list[KernelProfile]] = defaultdict(list)
    for (piece, number), spent in sorted(counted.items(), key=lambda item: item[0][1]):
        point = recorder.points[number]
        if point.kind != "piece":
            taken = seconds.get((piece, number), 0.0)
            parts[piece].append(
                KernelProfile(
                    point.name,
                    point.kind,
                    spent.count,
                    taken,
                    spent.bytes,
                    spent.operations,
                    spent.result,
                )
            )
    found = []
    for (within, number), _ in sorted(counted.items(), key=lambda item: item[0][1]):
        point = recorder.points[number]
        if point.kind == "piece" and within is None:
            info, unit = infos[point.name], units[forms.unit_of(point.name, number)]
            found.append(
                PieceProfile(
                    info.name,
                    info.layers,
                    unit.key,
                    unit.op_by_op,
                    seconds[within, number],
                    tuple(parts[number]),
                )
            )
    if parts[None]:
        between = sum(kernel.seconds for kernel in parts[None])
        found.append(PieceProfile("", (), "", "", between, tuple(parts[None])))
    return found


def _dtype(artifact: Artifact) -> torch.dtype:
    """The floating-point dtype that most weights have."""
    dtypes = [dtype_of(spec.dtype) for spec in artifact.requirements.weights]
    floats = [dtype for dtype in dtypes if dtype in (torch.float32, torch.bfloat16, torch.float16)]
    return statistics.mode(floats) if floats else torch.float32
