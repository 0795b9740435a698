"""Write the conditions under which variants serve a call in C++."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from hotstart.native.sizes import write_condition
from hotstart.records.dims import Dim
from hotstart.records.shapes import Variant


def write_where(variant: Variant, axes: Sequence[Dim]) -> str:
    """Write a variant's condition over `n`, the sizes of the axes; empty where there is none.

    Raises:
        NotNative: it is not computed as sizes are.
    """
    if not variant.where:
        return ""
    places = {dim.name: f"n[{number}]" for number, dim in enumerate(axes)}

    def size(value: ast.expr) -> str | None:
        return places.get(value.id) if isinstance(value, ast.Name) else None

    return write_condition(ast.parse(variant.where, mode="eval").body, size)
