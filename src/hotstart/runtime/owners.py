"""Stand for modules whose attributes calls set, where there is no model. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hotstart.records.artifact import WeightSpec
from hotstart.records.guards import Change


def owner(path: str, keep: Callable[[str, Any], None]) -> Any:
    """Make an object for the module at a path; `keep` gets what is set on it, by full name."""
    prefix = f"{path}." if path else ""

    class Owner:
        def __setattr__(self, name: str, value: Any) -> None:
            keep(prefix + name, value)

    return Owner()


def replaced_in_part(name: str, spec: WeightSpec) -> Change | None:
    """Say that a call has set one name of a tied weight and not the others; None if not tied."""
    if not spec.ties:
        return None
    others = ", ".join(each for each in (spec.name, *spec.ties) if each != name)
    return name, f"the same tensor as {others}", "another, which a call has set"
