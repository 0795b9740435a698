"""What forward changes in containers and objects of the caller's is changed there."""

from __future__ import annotations

import collections
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.records.nested import attributes_of
from tests.integration.contents import Layer, R, Slotted, State, same
from tests.semantics import both, build, check

pytestmark = pytest.mark.usefixtures("kept_pieces")


EAGER = hotstart.Options(compiler="op_by_op")


def copies(x: Tensor, taps: Any) -> tuple[Any, Any]:
    made, listed = copy.copy(taps), copy.copy([x])
    made["more"] = x * 2
    listed.append(x + 1)
    return made, listed


@both
def test_copies_of_containers_are_apart_from_these(compiler: str) -> None:
    taps = {"first": R(3), "flag": True}
    program = check(copies, (R(3), taps), compiler=compiler)
    program(R(3), given := dict(taps))
    assert list(given) == ["first", "flag"]


def append(x: Tensor, taps: Any) -> Tensor:
    taps.append(x * 2)
    return x + 1


def nested(x: Tensor, taps: Any) -> Tensor:
    taps[0]["seen"].append(x * 2)
    taps[0]["last"] = x
    return x + 1


def update(x: Tensor, cache: Any) -> Tensor:
    cache.update(k=x * 2, nothing=None, text="s", size=x.shape[0], view=x.mT)
    return x + 1


def grow(x: Tensor, cache: Any) -> Tensor:
    cache["k"] = torch.cat([cache["k"], x], dim=0)
    return cache["k"].sum(0)


def reorder(x: Tensor, cache: Any) -> Tensor:
    cache["k"] = cache.pop("k") * 2
    del cache["j"]
    return x + 1


def clear(x: Tensor, taps: Any) -> Tensor:
    first = taps[0]
    taps.clear()
    return x + first


def extend(x: Tensor, taps: Any) -> Tensor:
    taps += [x, 2, (x * 3, [x])]
    taps.reverse()
    return x + 1


def assign(x: Tensor, taps: Any) -> Tensor:
    taps[0] = x * 2
    taps[1:2] = []
    taps.insert(0, taps.pop())
    return x + 1


def share(x: Tensor, cache: Any) -> Tensor:
    cache["again"] = cache["seen"]
    cache["seen"].append(x * 2)
    return x + 1


def give_back(x: Tensor, taps: Any) -> Any:
    taps.append(x * 2)
    return {"taps": taps, "x": x + 1}


def undo(x: Tensor, taps: Any) -> Tensor:
    taps.append(x * 2)
    return x + taps.pop()


def set_fields(x: Tensor, state: Any) -> Tensor:
    state.h = state.h * 2 + x
    state.steps += 1
    state.new = x * 3
    return x + 1


def delete_field(x: Tensor, state: Any) -> Tensor:
    del state.steps
    return x + 1


def change_object(x: Tensor, layer: Any) -> Any:
    layer.seen.append(layer.h)
    layer.h = x * 2
    return layer, x + 1


def set_slots(x: Tensor, state: Any) -> Tensor:
    state.extra = state.h * 2
    state.h = x
    return x + 1


CHANGES: list[tuple[Callable[..., Any], Callable[[], Any]]] = [
    (append, lambda: []),
    (append, lambda: [R(2, 3), 1]),
    (nested, lambda: [{"seen": [], "last": R(1)}]),
    (update, dict),
    (update, lambda: {"size": 7, "k": R(1)}),
    (grow, lambda: {"k": R(4, 3)}),
    (reorder, lambda: {"k": R(2), "j": R(2), "i": 1}),
    (clear, lambda: [R(2, 3), R(2, 3)]),
    (extend, lambda: [R(2, 3)]),
    (assign, lambda: [R(2), R(3), R(4)]),
    (share, lambda: {"seen": [R(2)]}),
    (give_back, lambda: [R(2)]),
    (undo, lambda: [R(2, 3)]),
    (set_fields, lambda: State(R(2, 3))),
    (delete_field, lambda: State(R(2, 3))),
    (change_object, lambda: Layer(R(2, 3))),
    (set_slots, lambda: Slotted(R(2, 3))),
    (update, lambda: collections.OrderedDict(size=7, k=R(1))),
]
IDS = [f"{function.__name__}-{number}" for number, (function, _) in enumerate(CHANGES)]


def check_changes(function: Callable[..., Any], program: Any, make: Callable[[], Any]) -> None:
    """The same results and the same contents as in eager, in the caller's own container."""
    for _ in range(2):
        x, mine = R(2, 3), make()
        theirs, before = copy.deepcopy(mine), attributes_of(mine) or copy.copy(mine)
        with torch.no_grad():
            expected = function(x, theirs)
        assert not same(theirs, before) or function is undo
        found = program(x, mine)
        assert same(mine, theirs)
        assert same(found, expected)
        if function is give_back:
            assert found["taps"] is mine
        if function is share:
            assert mine["again"] is mine["seen"]
        if function is change_object:
            assert found[0] is mine


@pytest.mark.parametrize(("function", "make"), CHANGES, ids=IDS)
def test_what_forward_changes_is_changed(
    function: Callable[..., Any], make: Callable[[], Any]
) -> None:
    example = make()
    before = copy.deepcopy(example)
    program = build(function, R(2, 3), example)
    assert same(example, before)  # a build changes nothing
    check_changes(function, program, make)


@both
def test_a_cache_that_grows_serves_every_length(compiler: str) -> None:
    def step(x: Tensor, cache: Any) -> Tensor:
        cache["k"] = torch.cat([cache["k"], x], dim=0)
        cache["seen"].append(x.mT)
        cache["seen"].pop(0)
        return cache["k"].sum(0)

    dims = {"cache": {"k": {0: Dim("past", min=1, max=16)}}}
    cache = {"k": R(2, 3), "seen": [R(3, 1)]}
    program = build(step, R(1, 3), cache, compiler=compiler, dynamic_shapes=dims)
    theirs = copy.deepcopy(cache)
    held = cache["k"], cache["seen"]
    for _ in range(5):
        x = R(1, 3)
        torch.testing.assert_close(program(x, cache), step(x, theirs))
        torch.testing.assert_close(cache["k"], theirs["k"])
        assert same(cache["seen"], theirs["seen"])
    assert cache["seen"] is held[1]
    assert held[0].shape[0] == 2


def test_every_part_of_a_range_changes_containers_in_its_own_way() -> None:
    def f(x: Tensor, taps: Any) -> Tensor:
        if x.shape[0] > 4:
            taps.append(x * 2)
        return x + 1

    program = build(f, R(3, 3), [], dynamic_shapes={"x": {0: Dim("n", min=2, max=8)}})
    for size in (2, 4, 5, 8):
        mine: list[Tensor] = []
        x = R(size, 3)
        program(x, mine)
        assert same(mine, [x * 2] if size > 4 else [])


def test_a_container_that_has_changed_is_another_call() -> None:
    program = build(append, R(2, 3), [])
    taps: list[Tensor] = []
    program(R(2, 3), taps)
    with pytest.raises(hotstart.ContractError, match="taps"):
        program(R(2, 3), taps)
    assert len(taps) == 1
    more = hotstart.Options(compiler="op_by_op", on_miss="compile")
    program = hotstart.compile(append, (R(2, 3), []), options=more)
    for _ in range(3):
        program(R(2, 3), taps)
    assert len(taps) == 4


def test_one_container_in_two_places_is_refused_if_it_is_changed() -> None:
    def f(x: Tensor, first: Any, second: Any) -> Tensor:
        first.append(x)
        return x * (len(second["held"]) + 1)

    inner: list[Any] = []
    program = build(f, R(2), [], {"held": []})
    with pytest.raises(hotstart.ContractError, match=r"second\['held'\][\s\S]*is first, too"):
        program(R(2), inner, {"held": inner})
    with pytest.raises(hotstart.CaptureError, match=r"first and as second\['held'\]"):
        build(f, R(2), inner, {"held": inner})
    assert inner == []


class Bag:
    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.key = object()  # so that its attributes do not say it all


pytree.register_pytree_node(Bag, lambda bag: (bag.items, None), lambda items, _: Bag(list(items)))


@pytest.mark.parametrize(
    "container",
    [collections.defaultdict(list, k=R(1)), collections.deque([R(1)]), Bag([R(1)])],
)
def test_changes_of_other_containers_are_refused(container: Any) -> None:
    def f(x: Tensor, held: Any) -> Tensor:
        if isinstance(held, dict):
            held["k"] = x * 2
        elif isinstance(held, Bag):
            held.items.append(x)
        else:
            held.append(x)
        return x + 1

    with pytest.raises(hotstart.CaptureError, match="held"):
        build(f, R(2), container)


def test_a_change_of_order_that_dynamo_leaves_out_is_refused() -> None:
    def f(x: Tensor, recent: Any) -> Tensor:
        recent.move_to_end("k")
        return x + 1

    with pytest.raises(hotstart.CaptureError, match="recent"):
        build(f, R(2), collections.OrderedDict(k=R(1), j=R(1)))


# --- every way in -----------------------------------------------------------------------------


class Tapped(nn.Linear):
    def forward(self, x: Tensor, taps: Any) -> Tensor:
        y = super().forward(x)
        taps["all"].append(y * 2)
        taps["count"] = 1
        return y


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Tapped(3, 3)

    def forward(self, x: Tensor, taps: Any) -> Tensor:
        return self.inner(x, taps) + 1


def test_a_submodule_changes_what_it_is_given() -> None:
    model = Model().requires_grad_(False)
    plain = copy.deepcopy(model)
    example = {"all": [], "count": 0}
    hotstart.compile_submodule(model, "inner", (R(2, 3), example), options=EAGER)
    assert example == {"all": [], "count": 0}
    x = R(2, 3)
    mine, theirs = copy.deepcopy(example), copy.deepcopy(example)
    assert torch.equal(model(x, mine), plain(x, theirs))
    assert same(mine, theirs)
    assert mine["count"] == 1


def test_changes_after_a_load(tmp_path: Path) -> None:
    file = tmp_path / "changes.hot"
    model = Twice()
    build(model, State(R(2, 3)), {"all": []}).save(file)
    program = hotstart.load(file, Twice())
    mine = (State(R(2, 3)), {"all": []})
    theirs = copy.deepcopy(mine)
    found, expected = program(*mine), Twice()(*theirs)
    assert same(mine, theirs)
    assert same(found, expected)
    assert found is mine[1]
    assert len(theirs[1]["all"]) == 1
    assert theirs[0].steps == 1


class Twice(nn.Module):
    def forward(self, state: State, taps: Any) -> Any:
        state.h = state.h * 2
        state.steps += 1
        taps["all"].append(State(state.h + 1, 3))
        return taps
