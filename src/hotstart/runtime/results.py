"""Classes of results: those of the model's library, or plain ones with the same fields."""

from __future__ import annotations

import collections
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hotstart.errors import ArtifactError
from hotstart.options import Outputs
from hotstart.records.classes import find_class
from hotstart.records.standalone import ResultType


def result_classes(types: Iterable[tuple[str, ResultType]], outputs: Outputs) -> dict[str, type]:
    """Choose the classes that generated code builds results of, by the names it has for them.

    Args:
        types: what the results were objects of when they were traced.
        outputs: `"own"` imports those classes, `"plain"` imports nothing, and `"auto"` takes those
            whose module is imported already.

    Raises:
        ArtifactError: a class is missing, or cannot be stood in for.
    """
    return {name: _class_of(wanted, outputs) for name, wanted in types}


def _class_of(wanted: ResultType, outputs: Outputs) -> type:
    imported = wanted.path.partition(":")[0] in sys.modules
    if outputs == "own" or (outputs == "auto" and imported):
        return find_class(wanted.path)
    return plain_class(wanted)


class Plain:
    """An object that is its attributes."""

    result_type: ResultType

    def __init__(self, /, **fields: Any) -> None:
        vars(self).update(fields)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> Any:
        return _again, (self.result_type, (), vars(self))


class PlainMapping(Plain):
    """A record whose fields can be read as attributes, by name and by position.

    As in the classes it stands for, a field that is None is there as an attribute only.
    """

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._given()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given())

    def __len__(self) -> int:
        return len(self._given())

    def __contains__(self, name: object) -> bool:
        return name in self._given()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def keys(self) -> Iterable[str]:
        """List the names of the fields."""
        return self._given().keys()

    def values(self) -> Iterable[Any]:
        """List the values of the fields."""
        return self._given().values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """List the fields with their names."""
        return self._given().items()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field; the default where there is none of that name."""
        return self._given().get(name, default)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values of the fields."""
        return tuple(self._given().values())

    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@functools.cache
def plain_class(wanted: ResultType) -> type:
    """Make the class that stands for another; the same one whenever it is asked for.

    Raises:
        ArtifactError: only pytree knows how objects of the class are built.
    """
    module, _, qualified = wanted.path.partition(":")
    name = qualified.rpartition(".")[2]
    members = {"__module__": __name__, "__doc__": f"In place of {module}.{qualified}."}
    if wanted.kind == "named tuple":
        made: Any = collections.namedtuple(name, wanted.fields)  # type: ignore[misc]
        return type(name, (made,), {**members, "__slots__": (), "__reduce__": _reduced(wanted)})
    if wanted.kind == "registered":
        raise ArtifactError(
            f"a result holds a {module}.{qualified}: expected its module to be imported, since "
            "only pytree knows what such an object consists of; found that it is not. Import "
            f"{module} before the load, or load with outputs='own'."
        )
    base = PlainMapping if wanted.kind == "mapping" else Plain
    return type(name, (base,), {**members, "result_type": wanted})


def _reduced(wanted: ResultType) -> Any:
    return lambda made: (_again, (wanted, tuple(made), {}))


def _again(wanted: ResultType, items: Sequence[Any], fields: dict[str, Any]) -> Any:
    """Make an object of a plain class, as when it is unpickled."""
    cls: Any = plain_class(wanted)
    if wanted.kind == "named tuple":
        return cls(*items)
    made: Any = object.__new__(cls)
    vars(made).update(fields)
    return made
