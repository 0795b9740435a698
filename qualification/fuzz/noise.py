"""Tell rounding from faults: run operators in eager mode with noise of the size of their rounding.

Compiled code rounds elsewhere than eager mode does. How far that may bring results apart depends on
all that comes after, such as a comparison or `floor`. So the model itself runs a few times with
noise added to what each operator gives. A number of a compiled result is wrong if it lies farther
from eager's than some times as far as noise brings it; a number that noise makes another one
altogether is not decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from hotstart._torch.running.around import around_operators

RUNS = 5
"""With noise, for a result that has not the bits of eager's."""

TIMES = 6
"""So many times as far as noise brings numbers apart is taken for rounding."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXACT = _names(
    """
    clone _to_copy copy copy_ cat stack where masked_fill masked_fill_ index index_select gather
    take flip roll neg neg_ abs abs_ relu relu_ sign sgn floor floor_ ceil round trunc clamp
    clamp_ clamp_min clamp_max clamp_min_ maximum minimum fmax fmin amax amin max min aminmax
    sort topk fill fill_ zero_ full full_like zeros zeros_like ones ones_like eye empty
    empty_like new_zeros new_ones new_full constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d repeat tril triu diag_embed select_scatter slice_scatter
    diagonal_scatter lift_fresh lift_fresh_copy scalar_tensor max_pool2d_with_indices nan_to_num
    threshold hardshrink hardtanh copysign nextafter median kthvalue mode cummax cummin
    _cummax_helper masked_scatter complex im2col pixel_shuffle pixel_unshuffle arange scatter
    index_fill index_copy heaviside tril_ index_put_ put one_hot scatter_ index_fill_
    index_copy_ frexp _unsafe_index channel_shuffle unfold_copy empty_strided upsample_nearest1d
    upsample_nearest2d _upsample_nearest_exact1d
    """
)
"""Operators that give the same numbers wherever they are computed."""

_SIMPLE = _names(
    """
    add add_ sub sub_ mul mul_ div div_ rsub reciprocal sqrt square
    """
)
"""Operators of which each result is rounded once, so arguments need no noise."""

_ZEROS = _names(
    """
    clamp clamp_ clamp_min clamp_max clamp_min_ maximum minimum fmax fmin amax amin max min
    aminmax remainder hardtanh relu relu_ hardsigmoid
    """
)
"""Operators of which the sign of a zero is not promised: see `docs/semantics.md`."""


_SUMS = _names("sum prod mean nansum var std var_mean std_mean")
"""Operators that overflow or not by the order of what they add."""


_CENTERED = _names("native_layer_norm native_group_norm native_batch_norm")
"""Operators that subtract a rounded mean within, so that little may be left of any number."""


def with_rounding(called: Callable[..., Any], seed: int, *args: Any, **kwargs: Any) -> Any:
    """Call with noise that follows from a seed."""
    with _rounding(seed):
        return called(*args, **kwargs)


def _rounding(seed: int) -> contextlib.AbstractContextManager[Any]:
    """Have operators of this thread give numbers that are off by a few units in the last place."""
    generator = torch.Generator().manual_seed(seed)

    def noisy(func: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        schema, name = func._schema, func._schema.name.partition("::")[2]
        writes = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]
        is_view = any(r.alias_info is not None for r in schema.returns) and not any(writes)
        if is_view:
            return func(*args, **kwargs)
        moving = partial(perturbed, spare=name not in _CENTERED)
        if name not in _EXACT | _SIMPLE:
            given = [
                arg if write else pytree.tree_map_only(Tensor, moving, arg)
                for arg, write in zip(args, [*writes, *[False] * len(args)], strict=False)
            ]
            args = tuple(given)
        if name in _SUMS and seed % 2:
            args = (_turned(*args[:2]), *args[1:])
        result = func(*args, **kwargs)
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and _is_inexact(tensor):
                if name not in _EXACT:
                    tensor.copy_(perturbed(tensor))
                if name in _ZEROS and not tensor.is_complex():
                    _flip_zeros(tensor, generator)
        return result

    def perturbed(tensor: Tensor, spare: bool = True) -> Tensor:
        if not _is_inexact(tensor):
            return tensor
        if tensor.is_complex():
            return torch.view_as_complex(perturbed(torch.view_as_real(tensor.resolve_conj())))
        places = torch.finfo(tensor.dtype).eps * (2 if tensor.itemsize > 2 else 1)
        by = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * 2 - 1
        moved = (tensor.double() * (1 + by * places)).to(tensor.dtype)
        # A number of few digits was most likely computed without rounding. Narrow ones have few.
        short = (tensor * 8 == (tensor * 8).round()) & (tensor.abs() < 64)
        if tensor.itemsize <= 2:
            short = tensor == 0
        return torch.where(short, tensor, moved) if spare else moved

    return around_operators(noisy)


def _turned(tensor: Tensor, dims: Any = None) -> Tensor:
    """The tensor with dimensions in the opposite order."""
    if tensor.ndim == 0:
        return tensor
    if dims is None or dims == []:
        dims = list(range(tensor.ndim))
    return tensor.flip(dims if isinstance(dims, list | tuple) else [dims])


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _flip_zeros(tensor: Tensor, generator: torch.Generator) -> None:
    by = torch.rand(tensor.shape, generator=generator) < 0.5
    tensor.copy_(torch.where((tensor == 0) & by, -tensor, tensor))


def wrong(found: Tensor, runs: Sequence[Tensor], overflows: bool) -> Tensor:
    """Tell which numbers of a tensor are wrong.

    Args:
        found: what a program gave.
        runs: what eager mode gave, first without noise.
        overflows: whether what is infinite in eager mode may be a number, as narrow numbers are
            wider within kernels.
    """
    if not _is_inexact(found):
        same = torch.stack([run == runs[0] for run in runs]).all(0)
        return same & (found != runs[0])
    info = torch.finfo(found.dtype)
    wide = [_wide(run) for run in runs]
    expected, own = wide[0], _wide(found)
    stacked = torch.stack(wide)
    finite = stacked.isfinite().all(0)
    same = torch.stack([(run == expected) | (run.isnan() & expected.isnan()) for run in wide]).all(
        0
    )
    apart = stacked.amax(0) - stacked.amin(0)
    limit = TIMES * (apart + info.eps * expected.abs() + info.tiny)
    far = ~((own - expected).abs() <= limit)
    other = ~((own == expected) | (own.isnan() & expected.isnan()))
    if overflows:
        return finite & far
    return (finite & far) | (~finite & same & other)


def _wide(tensor: Tensor) -> Tensor:
    """As float64; complex numbers as pairs."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).double()
