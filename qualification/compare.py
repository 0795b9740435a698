"""Compare what two calls returned and changed: a program's with the model's.

Besides results: the inputs and the module's tensors after the call, and which results share
memory with which inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2, torch.float64: 1e-6, torch.complex128: 1e-6}
"""Relative and absolute, with Inductor; 1e-4 for other dtypes."""


class Wrong(Exception):
    """A call differs from the one that was expected."""


# --- a call ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Every tensor that is passed, once."""
        leaves = pytree.tree_leaves((self.args, dict(self.kwargs)))
        return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())


@dataclass(frozen=True)
class Did:
    """What a call returned and changed.

    Attributes:
        returned: its result; tensors are detached.
        inputs: the tensors it was given, afterwards.
        state: the module's tensors, afterwards.
        classes: of the tensors of the result.
        shared: for each of them, the input it is (or None), and the inputs whose memory it shares.
    """

    returned: Any
    inputs: list[Tensor]
    state: list[Tensor]
    classes: list[str]
    shared: list[tuple[int | None, tuple[int, ...]]]


def observe(call: Callable[..., Any], holder: nn.Module, given: Inputs, seed: int = 0) -> Did:
    """Call with copies of inputs; the module keeps what the call changed."""
    inputs = copied(given)
    tensors = inputs.tensors()
    torch.manual_seed(seed)
    with torch.no_grad():
        returned = call(*inputs.args, **inputs.kwargs)
    leaves = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
    return Did(
        returned=pytree.tree_map_only(Tensor, _kept, returned),
        inputs=[_kept(tensor) for tensor in tensors],
        state=[_kept(tensor) for tensor in (*holder.parameters(), *holder.buffers())],
        classes=[type(leaf).__name__ for leaf in leaves],
        shared=[_sharing(leaf, tensors) for leaf in leaves],
    )


@contextlib.contextmanager
def unchanged(holder: nn.Module) -> Iterator[None]:
    """Put back what a module's tensors held before."""
    state = [*holder.parameters(), *holder.buffers()]
    before = [_kept(tensor) for tensor in state]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, held in zip(state, before, strict=True):
                tensor.copy_(held)


def copied(given: Inputs) -> Inputs:
    """The same inputs in memory of their own; tensors that shared memory share it again."""
    memory: dict[int, Any] = {}
    known: dict[int, Tensor] = {}

    def copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            known[id(tensor)] = _copied(tensor, memory)
        return known[id(tensor)]

    args, kwargs = pytree.tree_map_only(Tensor, copy, (given.args, dict(given.kwargs)))
    return Inputs(args, kwargs)


def _copied(tensor: Tensor, memory: dict[int, Any]) -> Tensor:
    if tensor.layout is not torch.strided or type(tensor) is not Tensor or tensor.is_nested:
        return tensor.detach().clone()
    if tensor.is_conj():
        return _copied(tensor.conj(), memory).conj()
    if tensor.is_neg():
        return tensor.detach().clone()
    storage = tensor.untyped_storage()
    if storage._cdata not in memory:
        memory[storage._cdata] = storage.clone()
    own = torch.empty(0, dtype=tensor.dtype)
    return own.set_(memory[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride())


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _sharing(tensor: Tensor, inputs: Sequence[Tensor]) -> tuple[int | None, tuple[int, ...]]:
    itself = next((at for at, given in enumerate(inputs) if given is tensor), None)
    place = _memory(tensor)
    return itself, tuple(at for at, given in enumerate(inputs) if place == _memory(given) != 0)


def _memory(tensor: Tensor) -> int:
    """Where a tensor's memory is; 0 where it has none."""
    if tensor.layout is not torch.strided or tensor.is_nested:
        return 0
    return tensor.untyped_storage().data_ptr()


# --- two calls ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standard:
    """How equal two calls have to be.

    Attributes:
        tolerance: relative and absolute; 0 is bit for bit, except that NaN equals NaN, and None is
            `TOLERANCE`.
        values: compare what tensors hold, not only what they are.
        sharing: compare which memory results share with inputs.
    """

    tolerance: float | None = 0.0
    values: bool = True
    sharing: bool = True


def difference(found: Did, expected: Did, standard: Standard) -> str | None:
    """The first way in which a call differs from what was expected; None if in none."""
    try:
        require_same(found, expected, standard)
    except Wrong as wrong:
        return str(wrong)
    return None


def require_same(found: Did, expected: Did, standard: Standard) -> None:
    """Compare all that two calls did.

    Raises:
        Wrong: they differ.
    """
    require_same_result(found.returned, expected.returned, standard)
    if found.classes != expected.classes:
        raise Wrong(f"returns tensors of {found.classes}, eager of {expected.classes}")
    groups = (
        ("argument", found.inputs, expected.inputs),
        ("weight", found.state, expected.state),
    )
    for kind, own, theirs in groups:
        for at, pair in enumerate(zip(own, theirs, strict=True)):
            _require_same_leaf(f"after the call, {kind} {at}", *pair, standard)
    if standard.sharing and found.shared != expected.shared:
        raise Wrong(
            f"results share memory with inputs as {found.shared}, in eager {expected.shared}"
        )


def require_same_result(found: Any, expected: Any, standard: Standard) -> None:
    """Compare results: structure, types, dtypes, shapes and values.

    Raises:
        Wrong: they differ.
    """
    for at, pair in enumerate(_leaves(found, expected)):
        _require_same_leaf(f"result {at}", *pair, standard)


def largest_difference(found: Any, expected: Any) -> float:
    """The largest absolute difference over all tensors of a result; NaN equals NaN.

    Raises:
        Wrong: the results differ in their types, in the shape or dtype of a tensor, or in a value
            that is no floating-point number.
    """
    largest = 0.0
    for at, (mine, other) in enumerate(_leaves(found, expected)):
        inexact = isinstance(other, Tensor) and _is_inexact(other)
        _require_same_leaf(f"result {at}", mine, other, Standard(values=not inexact))
        if inexact:
            largest = max(largest, _apart(mine, other))
    return largest


def _leaves(found: Any, expected: Any) -> list[tuple[Any, Any]]:
    """What two results hold, in pairs."""
    leaves, structure = pytree.tree_flatten(found)
    wanted, wanted_structure = pytree.tree_flatten(expected)
    kinds = [type(result).__name__ for result in (found, expected)]
    if kinds[0] != kinds[1] or structure != wanted_structure:
        raise Wrong(f"returns {kinds[0]} {structure}, eager returns {kinds[1]} {wanted_structure}")
    return list(zip(leaves, wanted, strict=True))


def _require_same_leaf(name: str, found: Any, expected: Any, standard: Standard) -> None:
    if type(found) is not type(expected):
        raise Wrong(f"{name} is a {type(found).__name__}, eager has a {type(expected).__name__}")
    if not isinstance(expected, Tensor):
        if found != expected and found == found:
            raise Wrong(f"{name} is {found!r}, eager has {expected!r}")
    elif _is(found) != _is(expected):
        raise Wrong(f"{name} is {_is(found)}, eager has {_is(expected)}")
    elif standard.values:
        differing = _differing(found.detach(), expected.detach(), standard.tolerance)
        if differing:
            raise Wrong(f"{name} differs in {differing} of {expected.numel()} values")


def _is(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.layout, tensor.device


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _differing(found: Tensor, expected: Tensor, tolerance: float | None) -> int:
    """How many values differ."""
    if expected.layout is not torch.strided:
        found, expected = found.to_dense(), expected.to_dense()
    unequal = _bits(found).ne(_bits(expected)).any(-1)
    if not _is_inexact(expected) or not unequal.any() or expected.itemsize == 1:
        return int(unequal.sum())
    found, expected = (t.resolve_conj().resolve_neg().reshape(-1) for t in (found, expected))
    unequal &= ~(found.isnan() & expected.isnan())
    limit = TOLERANCE.get(expected.dtype, 1e-4) if tolerance is None else tolerance
    if limit:
        unequal &= ~torch.isclose(found, expected, rtol=limit, atol=limit, equal_nan=True)
    return int(unequal.sum())


def _bits(tensor: Tensor) -> Tensor:
    plain = tensor.resolve_conj().resolve_neg()
    # Not .contiguous(), which leaves odd strides of dimensions of size 1.
    own = torch.empty(plain.shape, dtype=plain.dtype).copy_(plain)
    return own.reshape(-1, 1).view(torch.uint8)


def _apart(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two tensors."""
    differ = (found != expected) & ~(found.isnan() & expected.isnan())
    if not differ.any():
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    apart = (found[differ].to(wide) - expected[differ].to(wide)).abs()
    return float(apart.nan_to_num(nan=torch.inf, posinf=torch.inf).max())
