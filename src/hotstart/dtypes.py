"""Dtypes by the names that records and files have for them, such as `float32`."""

from __future__ import annotations

import torch


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name.

    Raises:
        ValueError: torch has none of that name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"expected a dtype, found {name!r}")
    return found
