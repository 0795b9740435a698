"""Texts that are the same for what code cannot tell apart, and different for all else."""

from __future__ import annotations

import collections
import copy
import decimal
import enum
import fractions
import functools
import itertools
import marshal
import math
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hotstart.guards import objects
from hotstart.guards.codes import code_digest
from hotstart.guards.objects import Describer, Unknowable
from hotstart.guards.one_line import digest


def texts(value: Any) -> list[tuple[str, str]]:
    return list(Describer().describe("it", value))


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Plain:
    kind = "plain"

    def __init__(self, value: Any = 1) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: int) -> None:
        self.a = a


class Word(str):
    """Not Python's text."""

    def __new__(cls, text: str, by: int | None = None) -> Word:
        made = super().__new__(cls, text)
        if by is not None:
            made.by = by
        return made

    by: int


class Listed(list[int]):
    """Not Python's list."""

    def __init__(self, items: list[int], by: int | None = None) -> None:
        super().__init__(items)
        if by is not None:
            self.by = by


def scaled(by: float) -> Callable[[float], float]:
    return lambda x: x * by


def with_default(x: int, *, y: int = 1) -> int:
    return x + y


def with_set(x: Any) -> bool:
    return x in {"a", "bb", "ccc", "dddd", ("e", 1)}


DIFFERENT = [
    1, 1.0, True, "1", b"1", 1j, None, ..., 0.0, -0.0, math.nan,
    [1], (1,), {1}, frozenset({1}), {"a": 1}, {"a": 2}, {"b": 1}, [[1]], [1, 1],
    Color.RED, Color.BLUE, torch.float32, torch.float16, torch.device("cpu"), torch.device("meta"),
    torch.Size([1]), torch.zeros(2), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 1),
    torch.zeros(2, requires_grad=True), torch.zeros(2, 2), torch.zeros(2, 2).t(),
    nn.Parameter(torch.zeros(2)), Plain(), Plain(2), Slotted(1), Slotted(2), Plain, Slotted,
    scaled(2.0), scaled(3.0), with_default, functools.partial(with_default, 1),
    functools.partial(with_default, 2), functools.partial(with_default, y=2), Plain().get,
    Plain(2).get, torch.relu, torch.tanh, nn.functional.relu, math, enum,
    {(1, 2): 1}, {(2, 1): 1}, {(1, 2)}, {(2, 1)}, range(2), range(3), slice(2), slice(0, 2),
    Word("a"), Word("b"), Word("a", 1), Word("a", 2), Listed([1]), Listed([2]), Listed([1], 1),
    collections.deque([1]), collections.deque([2]), collections.deque([1], maxlen=1),
    collections.OrderedDict(a=1), collections.defaultdict(int, a=1), collections.Counter(a=2),
    bytearray(b"1"), bytearray(b"2"), decimal.Decimal(1), decimal.Decimal(2), fractions.Fraction(2),
    np.float32(1), np.float32(2), np.array([1, 2]), np.array([2, 1]), np.array([1.0, 2.0]),
    re.compile("a"), re.compile("b"), torch.finfo(torch.float32), torch.finfo(torch.float16),
    with_default.__code__, scaled(1.0).__code__, with_set.__code__, property(Plain.get),
    staticmethod(Plain.get),
]  # fmt: skip


def test_different_values_have_different_texts() -> None:
    for left, right in itertools.combinations(DIFFERENT, 2):
        assert texts(left) != texts(right), (left, right)


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: str(type(value).__name__))
def test_a_value_always_has_the_same_texts(value: Any) -> None:
    assert texts(value) == texts(value)
    if not isinstance(value, torch.Tensor | torch.finfo | type(math) | staticmethod):
        assert texts(value) == texts(copy.deepcopy(value))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(values, values)
def test_texts_are_equal_exactly_if_values_are(left: Any, right: Any) -> None:
    # repr tells 1 from True and 0.0 from -0.0, and nan is itself.
    assert (texts(left) == texts(right)) == (repr(left) == repr(right))


def test_tensors_count_without_their_contents() -> None:
    assert texts(torch.zeros(3)) == texts(torch.ones(3))


def test_sharing_shows() -> None:
    one, other = Plain(), Plain()
    assert texts([one, one]) != texts([one, other])


def test_an_object_that_holds_itself() -> None:
    one, other = Plain(), Plain()
    one.value, other.value = [one], [other]
    assert texts(one) == texts(other)


def compiled(source: str, filename: str = "here.py") -> types.CodeType:
    """The code of the function `f` that `source` defines."""
    scope: dict[str, Any] = {}
    exec(compile(source, filename, "exec"), scope)
    found = scope["f"].__code__
    assert isinstance(found, types.CodeType)
    return found


def test_code_counts_and_not_where_it_is_written() -> None:
    written = ("x + 1", "x + 2", "x - 1", "x + 1.0", "x + True", "x + 1j", "[x + 1 for x in x]")
    found = [code_digest(compiled(f"def f(x): return {text}")) for text in written]
    assert len({*found}) == len(written)
    assert found[0] == code_digest(compiled("\n\ndef f(x): return x + 1", "there.py"))


def test_what_code_holds_counts_by_value() -> None:
    f = compiled("def f(x): return x in ('a long text', 1.5, (2, 10 ** 30))")
    copied = copy.deepcopy(marshal.loads(marshal.dumps(f.co_consts)))
    assert copied[1] is not f.co_consts[1]
    assert code_digest(f) == code_digest(f.replace(co_consts=copied))


def test_code_that_holds_an_object_is_like_no_other() -> None:
    f = compiled("def f(x): return x + 1")
    one, other = (f.replace(co_consts=(None, object())) for _ in range(2))
    assert code_digest(one) == code_digest(one) != code_digest(other)


def test_a_patched_method_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Describer().method_text(Plain, "get")
    monkeypatch.setattr(Plain, "get", lambda self: 2)
    assert Describer().method_text(Plain, "get") != before
    monkeypatch.undo()
    assert Describer().method_text(Plain, "get") == before


def test_a_patched_module_of_torch_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Describer().method_text(nn.Linear, "forward") == ""
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x)
    assert Describer().method_text(nn.Linear, "forward") != ""


def mutual() -> tuple[Any, Any, Any]:
    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    def neither(n: int) -> bool:
        return not even(n) and not odd(n)

    return even, odd, neither


def test_what_leads_to_itself_has_one_text_wherever_one_begins() -> None:
    found = []
    for order in itertools.permutations(range(3)):
        describer, functions = Describer(), mutual()
        described = {number: describer.function_text(functions[number]) for number in order}
        found.append([described[number] for number in range(3)])
    assert all(one == found[0] for one in found)
    assert len(set(found[0])) == 3


def test_too_much_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MOST", 10)
    with pytest.raises(Unknowable, match="more than 10"):
        texts([[number] for number in range(20)])


def digest_of_all() -> str:
    return digest(f"{name} {text}" for value in DIFFERENT for name, text in texts(value))


@pytest.mark.thorough
def test_another_process_says_the_same() -> None:
    """Its hashes are others: those of this process are made at random."""
    code = "from tests.unit.guards import test_objects\nprint(test_objects.digest_of_all())"
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == f"{digest_of_all()}\n"
