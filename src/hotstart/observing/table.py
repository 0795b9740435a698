"""Calls that were seen, and what is proposed for them, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hotstart.errors import OptionsError
from hotstart.observing.axes import relations
from hotstart.observing.bounds import Bounds
from hotstart.observing.propose import Proposal, propose
from hotstart.observing.seen import SeenTarget
from hotstart.records.contract import Parameter
from hotstart.records.nested import Const, Slot, same_constant, walk


def table(name: str, target: SeenTarget, bounds: Bounds, dynamic_shapes: Mapping[str, Any]) -> str:
    """Show the calls of one module or method, and those that would be compiled for them."""
    count = sum(call.count for call in target.calls)
    title = f"{name}: {target.about}" if name else target.about
    lines = [f"{title}: {_times(count)}"]
    try:
        proposals = propose(target, bounds, dynamic_shapes)
    except OptionsError as error:
        return "\n".join([*lines, f"  nothing to propose: {error}"])
    for call, proposal in proposals.items():
        lines += _of_call(call, proposal)
    return "\n".join(lines)


def _of_call(name: str, proposal: Proposal) -> Iterator[str]:
    yield f"  {name}: {_times(proposal.count)}"
    rows = [row for p in proposal.seen[0].parameters for row in _arguments(p, proposal)]
    width = max((len(path) for path, _ in rows), default=0)
    yield from (f"    {path:<{width}}  {text}" for path, text in rows)
    for axis in proposal.axes:
        sizes = sorted(set(axis.sizes))
        seen = ", ".join(map(str, sizes)) if len(sizes) < 6 else f"{sizes[0]}..{sizes[-1]}"
        yield f"    axis {axis.name}: {proposal.dims[axis.name].served}, seen {seen}"
        if _may_be_chance(axis.places):
            yield (
                f"      {' and '.join(axis.paths)} had the same size in every call, and have to; "
                "observe a call where they differ if that is chance"
            )
    for name, size in relations(proposal.axes).items():
        if proposal.dims[name].is_plain:
            yield f"    in every call: {name} == {size}; each is compiled for its whole range"
    if not proposal.axes and any(map(len, proposal.seen[0].shapes)):
        yield "    no size varied, so all are static; observe calls of other sizes for ranges"
    if len({call.layouts for call in proposal.seen}) > 1:
        yield "    layouts varied: that of most calls is compiled, others are copied into it"


def _arguments(parameter: Parameter, proposal: Proposal) -> Iterator[tuple[str, str]]:
    for path, tree in walk(parameter.tree, parameter.name):
        if isinstance(tree, Slot):
            spec = proposal.seen[0].tensors[tree.index]
            dims = (proposal.dim_at((tree.index, dim)) for dim in range(len(spec.shape)))
            sizes = (
                str(size if dim is None else dim)
                for size, dim in zip(spec.shape, dims, strict=True)
            )
            yield path, f"{spec.dtype} [{', '.join(sizes)}] on {spec.device}"
        elif isinstance(tree, Const) and not _is_left_out(parameter, tree):
            yield path, f"{tree.value!r}"


def _is_left_out(parameter: Parameter, tree: Const) -> bool:
    """Tell whether an argument is what a call means that leaves it out."""
    is_default = parameter.has_default and same_constant(tree.value, parameter.default)
    return is_default and tree is parameter.tree


def _may_be_chance(places: tuple[tuple[int, int], ...]) -> bool:
    """Tell whether an axis has two dimensions of one tensor."""
    return len({slot for slot, _ in places}) < len(places)


def _times(count: int) -> str:
    return f"{count} call{'' if count == 1 else 's'}"
