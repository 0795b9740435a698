"""Take operators apart that C++ makes of others, such that sizes may be symbols."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from hotstart._torch.in_between import with_entries


@contextlib.contextmanager
def composites_of_any_size() -> Iterator[None]:
    """Take operators apart without making constants of sizes.

    These are made of others in C++ (2.11 to 2.15), which asks for sizes as plain numbers. Those of
    `cov` and `corrcoef` are read back from a tensor, which a trace refuses at any size.
    """
    aten, key = torch.ops.aten, torch._C.DispatchKey.CompositeImplicitAutograd
    made_of = {
        aten.linear.default: _linear,
        aten.matmul.default: _matmul(aten.matmul.default.py_kernels[key]),
        aten.scaled_dot_product_attention.default: _attention,
        aten.take_along_dim.default: _take_along_dim,
        aten.max_pool1d.default: _max_pool1d,
        aten.kron.default: _kron,
        aten.linalg_multi_dot.default: _multi_dot,
        aten.chain_matmul.default: _chain_matmul,
        aten.cov.default: _cov,
        aten.corrcoef.default: _corrcoef,
        aten.vander.default: _vander,
        aten.fill_diagonal_.default: _fill_diagonal_,
    }
    with contextlib.ExitStack() as stack:
        for operator, function in made_of.items():
            target: Any = operator
            # It keeps the functions that were looked up before.
            stack.callback(target._dispatch_cache.clear)
            stack.enter_context(with_entries(target.py_kernels, {key: function}))
            target._dispatch_cache.clear()
        yield


def _linear(
    given: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply as one matrix what may lie in memory in another order; C++ asks for its strides."""
    if given.ndim >= 3:
        given = _copied_unless(_is_contiguous, given)
    return _in_cpp(torch.ops.aten.linear.default, given, weight, bias)


def _matmul(known: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Multiply copies of what may have to be copied; whether it has to depends on sizes of 1."""

    def matmul(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if one.ndim >= 3 and other.ndim == 2:
            one = _copied_unless(_is_contiguous, one)
        elif one.ndim >= 3 and other.ndim >= 3:
            one, other = (_copied_unless(_is_one_batch, each) for each in (one, other))
        return known(one, other)

    return matmul


def _is_contiguous(given: torch.Tensor) -> bool:
    """Tell whether a tensor is known to be contiguous."""
    from torch._prims_common import is_contiguous_or_false

    return is_contiguous_or_false(given)


def _is_one_batch(given: torch.Tensor) -> bool:
    """Tell whether all matrices are known to lie at one distance from each other."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(
        statically_known_true(given.stride(at) == given.shape[at + 1] * given.stride(at + 1))
        for at in range(given.ndim - 3)
    )


def _copied_unless(lies_so: Callable[[torch.Tensor], bool], given: torch.Tensor) -> torch.Tensor:
    """Copy a tensor of open sizes unless it is known to lie in memory as it has to."""
    if not _are_open((*given.shape, *given.stride())) or lies_so(given):
        return given
    return given.clone(memory_format=torch.contiguous_format)


def _are_open(sizes: Sequence[Any]) -> bool:
    return any(isinstance(size, torch.SymInt) for size in sizes)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Give each of a batch the mask that it has in common; C++ asks whether the batch is 1."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    mask = attn_mask
    if (
        mask is not None
        and mask.ndim == query.ndim == 4
        and mask.is_floating_point()
        and _are_open(query.shape[:1])
        and statically_known_true(mask.shape[0] == 1)
    ):
        mask = mask.expand(query.shape[0], *mask.shape[1:])
    attention = torch.ops.aten.scaled_dot_product_attention.default
    return _in_cpp(attention, query, key, value, mask, *args, **kwargs)


def _take_along_dim(
    given: torch.Tensor, indices: torch.Tensor, dim: int | None = None
) -> torch.Tensor:
    if dim is None:
        return given.reshape(-1).gather(0, indices.reshape(-1))
    if given.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {given.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    at = dim % given.ndim
    before, after = given.shape[:at], given.shape[at + 1 :]
    shape = torch.broadcast_shapes((*before, indices.shape[at], *after), indices.shape)
    rows = given.broadcast_to((*shape[:at], given.shape[at], *shape[at + 1 :]))
    return rows.gather(at, indices.broadcast_to(shape))


def _max_pool1d(
    given: torch.Tensor,
    size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> torch.Tensor:
    flat = ((1, *size), (1, *(stride or size)), (0, *padding), (1, *dilation))
    pooled: torch.Tensor = torch.ops.aten.max_pool2d_with_indices(
        given.unsqueeze(-2), *flat, ceil_mode
    )[0]
    return pooled.squeeze(-2).contiguous()  # as its kernel for inference leaves it


def _kron(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Multiply all elements of one with all of the other, which is a block for each."""
    rank = max(one.ndim, other.ndim)
    outer, inner = ([*[1] * (rank - each.ndim), *each.shape] for each in (one, other))
    blocks = one.reshape([size for each in outer for size in (each, 1)])
    within = other.reshape([size for each in inner for size in (1, each)])
    # Eager views the product, and raises where strides do not allow that.
    return (blocks * within).view([a * b for a, b in zip(outer, inner, strict=True)])


def _chain_matmul(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    for matrix in matrices:
        if matrix.ndim != 2:
            raise RuntimeError(f"chain_matmul: expected matrices, found {matrix.ndim} dimensions")
    return matrices[0] if len(matrices) == 1 else _multi_dot(matrices)


def _multi_dot(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply matrices in the order that takes the fewest multiplications, as eager does.

    The first may be a row and the last a column, of one dimension.
    """
    if len(tensors) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors, found {len(tensors)}")
    first, last = tensors[0], tensors[-1]
    matrices = [
        first.unsqueeze(0) if first.ndim == 1 else first,
        *tensors[1:-1],
        last.unsqueeze(-1) if last.ndim == 1 else last,
    ]
    for matrix in matrices:
        if matrix.ndim != 2:
            raise RuntimeError(f"multi_dot(): expected matrices, found {matrix.ndim} dimensions")
    product = _product(matrices)
    if last.ndim == 1:
        product = product.squeeze(-1)
    return product.squeeze(0) if first.ndim == 1 else product


def _product(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    sizes = [matrices[0].shape[0], *(matrix.shape[1] for matrix in matrices)]
    if len(matrices) == 3:
        # Eager compares these two by other terms, which matters where a product is empty.
        a, b, c, d = sizes
        cut = 0 if a * c * (b + d) > b * d * (a + c) else 1
        cuts = {(0, 2): cut}
    else:
        cuts = _cheapest_cuts(sizes)

    def multiplied(start: int, end: int) -> torch.Tensor:
        if start == end:
            return matrices[start]
        cut = cuts.get((start, end), start)
        return multiplied(start, cut).mm(multiplied(cut + 1, end))

    return multiplied(0, len(matrices) - 1)


def _cheapest_cuts(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Find after which matrix each run of a chain is cut, the first of several that are alike."""
    count = len(sizes) - 1
    costs = {(at, at): 0 for at in range(count)}
    cuts: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for start in range(count - length):
            end = start + length
            by_cut = {
                cut: costs[start, cut]
                + costs[cut + 1, end]
                + sizes[start] * sizes[cut + 1] * sizes[end + 1]
                for cut in range(start, end)
            }
            cuts[start, end] = min(by_cut, key=by_cut.__getitem__)
            costs[start, end] = by_cut[cuts[start, end]]
    return cuts


def _cov(
    given: torch.Tensor,
    correction: int = 1,
    fweights: torch.Tensor | None = None,
    aweights: torch.Tensor | None = None,
) -> torch.Tensor:
    if given.ndim > 2:
        raise RuntimeError(f"cov(): expected two or fewer dimensions, found {given.ndim}")
    if given.dtype == torch.bool:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    if fweights is not None or aweights is not None:
        return _in_cpp(torch.ops.aten.cov.default, given, correction, fweights, aweights)
    rows = given if given.ndim == 2 else given.view(1, -1)
    count = rows.shape[1]
    centred = rows - (rows.sum(1) / torch.scalar_tensor(count, dtype=torch.int64)).unsqueeze(1)
    freedom = torch.sym_max(count - correction, 0)
    products = centred.mm(centred.t().conj())
    return (products / torch.scalar_tensor(freedom, dtype=torch.int64)).squeeze()


def _corrcoef(given: torch.Tensor) -> torch.Tensor:
    found = _cov(given)
    if found.ndim == 0:
        return found / found
    diagonal = found.diagonal()
    spread = (diagonal.real if diagonal.is_complex() else diagonal).sqrt()
    scaled = found / spread.view(-1, 1) / spread.view(1, -1)
    if not scaled.is_complex():
        return scaled.clamp(-1, 1)
    return torch.complex(scaled.real.clamp(-1, 1), scaled.imag.clamp(-1, 1))


def _vander(
    given: torch.Tensor,
    N: int | None = None,  # noqa: N803
    increasing: bool = False,
) -> torch.Tensor:
    if given.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    count = given.shape[0] if N is None else N
    dtype = torch.promote_types(given.dtype, torch.int64)
    first = given.new_ones((given.shape[0], torch.sym_min(count, 1)), dtype=dtype)
    base = given.to(dtype).unsqueeze(1)
    powers = base.expand(-1, torch.sym_max(count - 1, 0)).cumprod(1)
    made = torch.cat([first, powers], 1)
    return made if increasing else made.flip(1)


def _fill_diagonal_(given: torch.Tensor, value: Any, wrap: bool = False) -> torch.Tensor:
    if given.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if wrap and given.ndim == 2:
        return _in_cpp(torch.ops.aten.fill_diagonal_.default, given, value, wrap)
    if any(size != given.shape[0] for size in given.shape[1:]) and given.ndim > 2:
        raise RuntimeError("all dimensions of input must be of equal length")
    diagonal = given.diagonal()
    while diagonal.ndim > 1:
        diagonal = diagonal.diagonal(dim1=0, dim2=-1)
    diagonal.fill_(value)
    return given


def _in_cpp(operator: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Take an operator apart as C++ does."""
    made: torch.Tensor = operator._op_dk(
        torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs
    )
    return made
