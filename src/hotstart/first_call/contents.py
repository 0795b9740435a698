"""Compare values by what they hold."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hotstart._torch.dynamo.fake_arguments import digest_of, has_memory
from hotstart._torch.graphs.symbols import is_fake

_DEPTH = 4
"""So deep are containers looked into."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
"""Types of constants, which are equal where their texts are."""


class _TooDeep:
    """Stands for what is not looked into; equal to nothing else."""


def contents_of(values: Iterable[Any]) -> list[object]:
    """Tokens of what values hold, equal for equal contents."""
    return [*map(_token, leaves(values))]


def leaves(values: Iterable[Any], depth: int = _DEPTH) -> Iterator[Any]:
    """List what containers hold, however deep, up to a limit; keys of dicts, too."""
    for value in values:
        if not isinstance(value, list | tuple | set | frozenset | dict | collections.deque):
            yield value
        elif not depth:
            yield _TooDeep()
        else:
            yield type(value)
            yield len(value)
            yield from leaves(value, depth - 1)
            if isinstance(value, dict):
                yield from leaves(value.values(), depth - 1)


def _token(value: Any) -> object:
    if isinstance(value, torch.Tensor):
        return digest_of(value) if has_memory(value) and not is_fake(value) else id(value)
    if isinstance(value, _TooDeep):
        return object()
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else id(value)
