"""Say that a call takes another side of a branch than a variant. Imports no torch."""

from typing import Any

import msgspec


class OtherSide(msgspec.Struct, frozen=True):
    """Says that a call goes on with another variant, from the beginning.

    Attributes:
        sides: those of the variant.
    """

    sides: tuple[bool, ...]


def leaves(condition: Any, side: bool) -> bool:
    """Tell whether a call takes another side of a branch than a variant was made for."""
    return bool(condition) is not side
