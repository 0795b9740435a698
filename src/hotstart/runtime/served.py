"""Words for calls that a program does not serve. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hotstart.errors import ContractError
from hotstart.records.artifact import Contract
from hotstart.records.shapes import Variant


def not_served(
    contract: Contract, variants: Sequence[Variant], sizes: Mapping[str, int]
) -> ContractError:
    """Explain that no variant serves the sizes of a call, as far as they are known."""
    for dim in contract.axes:
        if dim.name in sizes and not dim.serves(sizes[dim.name]):
            return ContractError(
                first_with(contract, dim.name),
                f"axis {dim.name!r} of size {sizes[dim.name]}",
                f"{dim}",
                "declare a larger Dim, or pad or split the input",
            )
    return ContractError("sizes", str(dict(sizes)), " or ".join(v.name for v in variants))


def other_size(
    contract: Contract, path: str, dim: int, axis: str, found: int, expected: int
) -> ContractError:
    """Explain that a dimension has not the size that its axis has elsewhere."""
    return ContractError(
        path,
        f"size {found} in dimension {dim}",
        f"size {expected} there, the size of axis {axis!r} in {first_with(contract, axis)}",
    )


def shares_a_weight(path: str, weight: str) -> ContractError:
    """Explain that an argument lies where a weight does, and a call writes to one of them."""
    return ContractError(
        path,
        f"a tensor that shares memory with the model's {weight}",
        "a tensor of its own, since the model writes to one of them",
        "pass a .clone()",
    )


def first_with(contract: Contract, axis: str) -> str:
    """The path of the first tensor that has an axis."""
    return next(spec.path for spec in contract.tensors if axis in spec.shape)


def in_words(value: Any) -> str:
    """Describe a value that a call passed, and that is no tensor, in a few words."""
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"a {type(value).__qualname__}"
