"""Make up the arguments of a call that a program takes, of given sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hotstart.errors import OptionsError
from hotstart.records.artifact import StitchedCall
from hotstart.records.contract import Contract
from hotstart.records.dims import Dim
from hotstart.records.trees import build
from hotstart.runtime.entry.by_parameter import as_passed
from hotstart.runtime.made_up import KINDS
from hotstart.saving.inputs import Inputs, tensors


def made_up_calls(
    call: StitchedCall, sizes: Mapping[str, int]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Make up arguments, by position and by name, with values of one kind after another.

    Args:
        call: what was compiled.
        sizes: of all its axes.

    Raises:
        OptionsError: an axis has no size, or there is no such axis.
    """
    contract = call.contract
    _require_sizes(contract, sizes)
    for kind in KINDS:
        made = tensors(contract, Inputs(f"made up, {kind}", sizes, kind))
        values = [build(p.tree, lambda slot: made[slot.index]) for p in contract.parameters]  # noqa: B023
        yield as_passed(contract.parameters, values, (), {})


def _require_sizes(contract: Contract, sizes: Mapping[str, int]) -> None:
    axes = {axis.name: axis for axis in contract.axes}
    wrong = [name for name in axes if name not in sizes] or [n for n in sizes if n not in axes]
    if not wrong:
        return
    takes = ", ".join(_shown(axis) for axis in axes.values()) or "none: no size is dynamic"
    got = ", ".join(f"{name}={size}" for name, size in sizes.items()) or "none"
    raise OptionsError(f"sizes: got {got}, takes one for each axis: {takes}")


def _shown(axis: Dim) -> str:
    return f"{axis.name}={axis.min}..{axis.max}"
