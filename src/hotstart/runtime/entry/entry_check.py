"""A check of a call: a condition for the generated entry, and the error of a call that fails it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from hotstart.errors import ContractError

Found: TypeAlias = Mapping[str, Any]
"""The values of an entry's variables in a call, as far as they are known."""

Explain: TypeAlias = Callable[[Found], ContractError]
"""Makes the error of a call that fails a check."""


class Check(msgspec.Struct, frozen=True):
    """A condition, as a Python expression over an entry's variables, and the error if it fails."""

    source: str
    explain: Explain
