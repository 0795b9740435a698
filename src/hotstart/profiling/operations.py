"""Count what a call of a kernel or operator reads and computes, as far as its arguments tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

Count = Callable[[Sequence[Any], Mapping[str, Any], Any], int]
"""Counts multiplications and additions of a call, given its arguments and its result."""


def tensors_among(values: Any) -> Iterator[Tensor]:
    """Find the tensors in arguments or results, also in lists and tuples of them."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_among(value)


def bytes_of(*values: Any) -> int:
    """Add up the sizes of all different tensors among arguments and results, in bytes.

    So much is read and written if all of it is, once: a kernel that looks rows of a table up reads
    less.
    """
    sizes: dict[int, int] = {}
    for tensor in tensors_among(values):
        packed = tensor.is_mkldnn
        place = id(tensor) if packed else tensor.data_ptr()
        strides = [1] * tensor.dim() if packed else tensor.stride()
        pairs = zip(tensor.shape, strides, strict=True)
        count = math.prod(size for size, stride in pairs if stride or not size)
        sizes[place] = max(sizes.get(place, 0), count * tensor.element_size())
    return sum(sizes.values())


def sizes_of(name: str, args: Sequence[Any], result: Any) -> str:
    """Write the sizes of what a call makes, such as `4 x 384`; empty if they are not known.

    That is the first tensor of its result; hotstart's own kernels write to an argument.

    Args:
        name: what is called, as generated code has it.
        args: its arguments by position.
        result: what it gave.
    """
    if name in _MADE:
        return _sizes(_MADE[name](args))
    first = next(tensors_among(result), None)
    return "" if first is None else _sizes(first.shape)


def _sizes(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))


def operations_of(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
) -> int | None:
    """Count multiplications and additions of a call; None where nothing is known of it.

    Args:
        name: what is called, as generated code has it: `linear`, `query.matmul`,
            `torch.ops.mkldnn._linear_pointwise.default`.
        args: its arguments by position.
        kwargs: its arguments by name.
        result: what it gave.
    """
    parts = name.split(".")
    plain = [part for part in parts if part not in ("default", "out")]
    count = _COUNTS.get(".".join(parts[-2:])) or _COUNTS.get(plain[-1])
    return None if count is None else count(args, kwargs, result)


def _linear(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Rows times a weight, which may be packed: each number of the result is a sum over inputs."""
    return 2 * _first(result).numel() * int(args[0].shape[-1])


def _product(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """A product of matrices, of which the last argument is the second one."""
    second = args[-1]
    return 2 * _first(result).numel() * int(second.shape[-2 if second.dim() > 1 else -1])


def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """A window over some channels for each number of the result; if transposed, of the input."""
    transposed = kwargs.get("transposed", len(args) > 6 and args[6] is True)
    return _windows(args[0] if transposed else _first(result), args[1])


def _packed_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    return _windows(_first(result), args[1])


def _packed_convolution_and_sum(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """The same with a tensor that is added, before or after the input."""
    return _windows(_first(result), args[2])


def _transposed_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    return _windows(args[0], args[1])


def _windows(each: Tensor, weight: Tensor) -> int:
    return 2 * each.numel() * math.prod(map(int, weight.shape[1:]))


def _attention(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    query, key, value = args[:3]
    pairs = math.prod(map(int, query.shape[:-1])) * int(key.shape[-2])
    return 2 * pairs * int(query.shape[-1] + value.shape[-1])


def _own_linear(args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    rows, outputs, inputs = args[5:8]
    return 2 * int(rows) * int(outputs) * int(inputs)


def _first(result: Any) -> Tensor:
    return next(tensors_among(result))


_COUNTS: Mapping[str, Count] = {
    "_convolution_pointwise.binary": _packed_convolution_and_sum,
    "_convolution_pointwise.default": _packed_convolution,
    "_convolution_pointwise_.binary": _packed_convolution_and_sum,
    "_convolution_transpose_pointwise.default": _transposed_convolution,
    "_linear_pointwise.binary": _linear,
    "_linear_pointwise.default": _linear,
    "_mkl_linear.default": _linear,
    "_scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "addmm": _product,
    "attention": _attention,
    "baddbmm": _product,
    "bmm": _product,
    "conv1d": _packed_convolution,
    "conv2d": _packed_convolution,
    "conv3d": _packed_convolution,
    "convolution": _convolution,
    "linear": _linear,
    "linear_kernel": _own_linear,
    "matmul": _product,
    "mm": _product,
    "scaled_dot_product_attention": _attention,
}
"""By the last part of a name, or the last two; hotstart's own are `attention` and
`linear_kernel`."""

_MADE: Mapping[str, Callable[[Sequence[Any]], Sequence[int]]] = {
    "attention": lambda args: args[4].shape,
    "linear_kernel": lambda args: args[5:7],
}
"""Sizes of what a kernel of hotstart's makes, given its arguments."""
