"""Run a program and its captured operators side by side, and compare them piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hotstart.api import compile
from hotstart.bisecting.piece_outputs import Comparer, Distance, Keeper, distance
from hotstart.bisecting.record import Bisection, PieceDifference
from hotstart.errors import OptionsError
from hotstart.faults import require
from hotstart.options import Options
from hotstart.profiling.watched import Watch, WatchedPieces
from hotstart.program import Program
from hotstart.records.trees import tensors_of


def bisect(
    model: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Mapping[str, Any] | None = None,
    split_on: Any = "auto",
    options: Options | None = None,
    program: Program | None = None,
    tolerance: float | None = None,
) -> Bisection:
    """Find the first piece of a program whose outputs depart from eager mode's.

    The model is compiled as for `hotstart.compile`, and once more so that all operators run as
    captured. One call of each is made, with the same random seed, and what pieces return is
    compared; each compiled piece runs once more, on the inputs that it has in eager mode. What a
    call writes to, it writes to each time.

    Args:
        model: as for `hotstart.compile`.
        args: a real call, by position: the values are what is compared.
        kwargs: the same by name.
        dynamic_shapes: as for `hotstart.compile`.
        split_on: as for `hotstart.compile`.
        options: as for `hotstart.compile`.
        program: what to look into, instead of compiling it: one that was built of this model with
            such arguments, and maybe loaded.
        tolerance: how far outputs of a piece may be from those of its operators, as a share of the
            largest number expected. By default 1e-4 for float32, 1e-10 for float64, 0.05 for
            bfloat16 and 0.01 for float16; integers are to be equal.

    Raises:
        OptionsError: the program has other pieces than this model, or an argument makes no sense.
        HotstartError: as `hotstart.compile` and calls of programs raise.
    """
    options = Options() if options is None else options
    require("options", options, Options, "a hotstart.Options")
    if program is not None:
        require("program", program, Program, "a hotstart.Program; import torch before it is loaded")
    if tolerance is not None and not (isinstance(tolerance, float | int) and tolerance >= 0):
        raise OptionsError(f"tolerance: got {tolerance!r}, takes a number of 0 or more")

    def compiled(options: Options) -> Program:
        return compile(
            model, args, kwargs, dynamic_shapes=dynamic_shapes, split_on=split_on, options=options
        )

    captured = compiled(replace(options, compiler="op_by_op"))
    program = compiled(options) if program is None else program
    _require_same_pieces(program, captured)
    keeper = Keeper()
    reference = _result(_watched(captured, keeper), args, kwargs)
    comparer = Comparer(keeper.runs, alone=not _writes_to_weights(program), tolerance=tolerance)
    result = _result(_watched(program, comparer), args, kwargs)
    expected = _result(model, args, kwargs)
    of_captured = distance(reference, expected, tolerance)
    of_program = distance(result, expected, tolerance)
    return Bisection(
        captured_error=of_captured.error,
        captured_departs=of_captured.departs,
        error=of_program.error,
        departs=of_program.departs,
        pieces=tuple(_pieces(program, comparer)),
        tolerance=tolerance,
    )


def _watched(program: Program, watch: Watch) -> Program:
    return program.in_forms(WatchedPieces(program.artifact, watch))


def _result(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> list[torch.Tensor]:
    """The tensors that a call returns, copied."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        result = function(*args, **(kwargs or {}))
        return [tensor.clone() for _, tensor in tensors_of(result)]


def _require_same_pieces(program: Program, captured: Program) -> None:
    """Raise if a program was not cut where what was captured now is cut."""
    names, others = ([piece.name for piece in each.pieces] for each in (program, captured))
    if names != others:
        raise OptionsError(
            f"program: got one of {len(names)} pieces, takes one of the {len(others)} that the "
            "model has with these arguments, options and split_on"
        )


def _writes_to_weights(program: Program) -> bool:
    return any(spec.mutated for spec in program.artifact.requirements.weights)


def _pieces(program: Program, comparer: Comparer) -> list[PieceDifference]:
    infos = {piece.name: piece for piece in program.pieces}
    found = []
    for name, each in comparer.found.items():
        counts: Distance = each.together if each.alone is None else each.alone
        error = None if each.alone is None else each.alone.error
        found.append(
            PieceDifference(name, infos[name].layers, error, each.together.error, counts.departs)
        )
    return found
