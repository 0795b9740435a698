"""Results are of their own classes, or of plain ones with the same fields."""

from __future__ import annotations

import pickle
import sys
from typing import Any

import pytest

from hotstart.errors import ArtifactError
from hotstart.records.nested import assemble
from hotstart.records.standalone import ResultKind, ResultType
from hotstart.runtime.results import plain_class, result_classes
from tests.integration.shop import Result

SHOP = ResultType("tests.integration.shop:Result", "attributes", ("scores", "notes"))


def chosen(wanted: ResultType, outputs: Any) -> type:
    (found,) = result_classes([("name", wanted)], outputs).values()
    return found


def of(kind: ResultKind) -> ResultType:
    return ResultType("no_library.outputs:Outer.Answer", kind, ("first", "second"))


def test_own_classes_are_imported_and_found_where_they_are_imported() -> None:
    assert chosen(SHOP, "own") is chosen(SHOP, "auto") is Result
    assert chosen(SHOP, "plain") is plain_class(SHOP) is not Result
    with pytest.raises(ArtifactError, match="expected a class at no_library"):
        chosen(of("mapping"), "own")
    assert chosen(of("mapping"), "auto") is plain_class(of("mapping"))
    assert "no_library" not in sys.modules


def test_a_plain_object_is_its_attributes() -> None:
    cls = plain_class(of("attributes"))
    made = assemble(cls, {"first": 1}, {"second": 2})
    assert (made.first, made.second) == (1, 2)
    assert repr(made) == "Answer(first=1, second=2)"
    assert cls.__doc__ == "In place of no_library.outputs.Outer.Answer."


def test_a_plain_named_tuple_is_one() -> None:
    made = plain_class(of("named tuple"))(1, 2)
    first, second = made
    assert (first, second) == (made.first, made.second) == (1, 2)
    assert made == (1, 2)
    assert repr(made) == "Answer(first=1, second=2)"


def test_a_plain_mapping_leaves_out_what_is_none() -> None:
    made = plain_class(of("mapping"))(first=1, second=None)
    assert made.second is None
    assert list(made) == ["first"]
    assert made["first"] == made[0] == made.get("first") == 1
    assert made[:1] == made.to_tuple() == (1,)
    assert dict(made.items()) == {"first": 1}
    assert list(made.values()) == [1]
    assert "second" not in made
    for missing in ("second", 1):
        with pytest.raises((KeyError, IndexError)):
            made[missing]


@pytest.mark.parametrize("kind", ["attributes", "mapping", "named tuple"])
def test_plain_results_go_to_other_processes(kind: ResultKind) -> None:
    cls = plain_class(of(kind))
    made = cls(1, 2) if kind == "named tuple" else assemble(cls, {"first": 1, "second": 2})
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is cls
    assert (again.first, again.second) == (1, 2)


def test_what_only_pytree_can_build_needs_its_class() -> None:
    with pytest.raises(ArtifactError, match=r"Import no_library\.outputs before the load"):
        chosen(of("registered"), "auto")
