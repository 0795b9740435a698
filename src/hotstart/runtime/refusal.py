"""A check of a call: a condition for the generated entry, and the error of a call that fails it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
import torch

from hotstart.errors import ContractError
from hotstart.runtime.passed import MISSING
from hotstart.runtime.served import in_words
from hotstart.runtime.tensors import describe_tensor

Found: TypeAlias = Mapping[str, Any]
"""The values of an entry's variables in a call, as far as they are known."""

Explain: TypeAlias = Callable[[Found], ContractError]
"""Makes the error of a call that fails a check."""


class Check(msgspec.Struct, frozen=True):
    """A condition, as a Python expression over an entry's variables, and the error if it fails."""

    source: str
    explain: Explain


def not_taken(path: str, variable: str, takes: str, advice: str = "") -> Explain:
    """Explain that the value of a variable is not what a call takes at a path."""
    return lambda found: ContractError(path, describe(found[variable]), takes, advice)


def describe(value: Any) -> str:
    """A few words for any value that a call passed."""
    if isinstance(value, torch.Tensor):
        return describe_tensor(value)
    if value is MISSING:
        return "nothing"
    return in_words(value)
