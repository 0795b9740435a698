"""What a call did, and how another call differs from it.

Besides the results: the inputs and the module's tensors after the call, and which results share
memory with which inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qualification.databases.subjects import Inputs

TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 2e-2, torch.float64: 1e-6, torch.complex128: 1e-6}
"""Relative and absolute, with Inductor; 1e-4 for other dtypes."""


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
    """Call with copies of inputs, and put back the module's tensors afterwards."""
    state = [*holder.parameters(), *holder.buffers()]
    before = [tensor.detach().clone() for tensor in state]
    inputs = copied(given)
    tensors = inputs.tensors()
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            returned = call(*inputs.args, **inputs.kwargs)
            leaves = [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, Tensor)]
            return Did(
                returned=pytree.tree_map_only(Tensor, _kept, returned),
                inputs=[_kept(tensor) for tensor in tensors],
                state=[_kept(tensor) for tensor in state],
                classes=[type(leaf).__name__ for leaf in leaves],
                shared=[_sharing(leaf, tensors) for leaf in leaves],
            )
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


@dataclass(frozen=True)
class Standard:
    """How equal two calls have to be.

    Attributes:
        exact: bit for bit, except that NaN equals NaN; else within `TOLERANCE`.
        values: compare what tensors hold, not only what they are.
        sharing: compare which memory results share with inputs.
    """

    exact: bool = True
    values: bool = True
    sharing: bool = True


def difference(found: Did, expected: Did, standard: Standard) -> str | None:
    """The first way in which a call differs from what was expected; None if in none."""
    return next(_differences(found, expected, standard), None)


def _differences(found: Did, expected: Did, standard: Standard) -> Iterator[str]:
    leaves, structure = pytree.tree_flatten(found.returned)
    wanted, wanted_structure = pytree.tree_flatten(expected.returned)
    kinds = [type(did.returned).__name__ for did in (found, expected)]
    if kinds[0] != kinds[1] or structure != wanted_structure:
        yield f"returns {kinds[0]} {structure}, eager returns {kinds[1]} {wanted_structure}"
        return
    for at, pair in enumerate(zip(leaves, wanted, strict=True)):
        yield from _leaf(f"result {at}", *pair, standard)
    if found.classes != expected.classes:
        yield f"returns tensors of {found.classes}, eager of {expected.classes}"
    groups = (
        ("argument", found.inputs, expected.inputs),
        ("weight", found.state, expected.state),
    )
    for kind, own, theirs in groups:
        for at, (mine, other) in enumerate(zip(own, theirs, strict=True)):
            for text in _leaf(f"{kind} {at}", mine, other, standard):
                yield f"after the call, {text}"
    if standard.sharing and found.shared != expected.shared:
        yield f"results share memory with inputs as {found.shared}, in eager {expected.shared}"


def _leaf(name: str, found: Any, expected: Any, standard: Standard) -> Iterator[str]:
    if not isinstance(expected, Tensor):
        if type(found) is not type(expected) or (found != expected and found == found):
            yield f"{name} is {found!r}, eager has {expected!r}"
        return
    if type(found) is not type(expected):
        yield f"{name} is a {type(found).__name__}, eager has a {type(expected).__name__}"
    elif _is(found) != _is(expected):
        yield f"{name} is {_is(found)}, eager has {_is(expected)}"
    elif standard.values:
        differing = _differing(found, expected, standard.exact)
        if differing:
            yield f"{name} differs in {differing} of {expected.numel()} values"


def _is(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.layout, tensor.device


def _differing(found: Tensor, expected: Tensor, exact: bool) -> int:
    """How many values differ."""
    if expected.layout is not torch.strided:
        found, expected = found.to_dense(), expected.to_dense()
    inexact = expected.is_floating_point() or expected.is_complex()
    unequal = _bits(found).ne(_bits(expected)).any(-1)
    if not inexact or not unequal.any() or expected.itemsize == 1:
        return int(unequal.sum())
    found, expected = (t.resolve_conj().resolve_neg().reshape(-1) for t in (found, expected))
    unequal &= ~(found.isnan() & expected.isnan())
    if not exact:
        limit = TOLERANCE.get(expected.dtype, 1e-4)
        unequal &= ~torch.isclose(found, expected, rtol=limit, atol=limit, equal_nan=True)
    return int(unequal.sum())


def _bits(tensor: Tensor) -> Tensor:
    plain = tensor.resolve_conj().resolve_neg()
    # Not .contiguous(), which leaves odd strides of dimensions of size 1.
    own = torch.empty(plain.shape, dtype=plain.dtype).copy_(plain)
    return own.reshape(-1, 1).view(torch.uint8)
