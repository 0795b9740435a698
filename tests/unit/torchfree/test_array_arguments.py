"""Calls outside a contract are refused alike on tensors and on arrays, in order and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.errors import ContractError
from hotstart.runtime.entry.generated_entry import Entry
from hotstart.runtime.entry.tensor_arguments import TensorArguments
from hotstart.torchfree.array_arguments import ArrayArguments
from tests.integration.plain_records import Pair, State

Make = Callable[..., Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Model(nn.Module):
    """Reads strides of one argument, writes to another, and keeps tensors in the caller's lists."""

    def forward(
        self,
        x: Tensor,
        pair: Pair,
        state: State,
        first: list[Tensor],
        second: list[Tensor],
        /,
        cache: Tensor,
        mode: str = "sum",
        *,
        turned: Tensor,
        scale: float = 2.0,
    ) -> Tensor:
        first.append(x * scale)
        second.append(x + pair.left)
        cache.add_(1)
        flat = turned.view(-1) if turned.is_contiguous() else turned.t().reshape(-1)
        made = x + pair.left + state.last
        return made.sum() + flat.sum() if mode == "sum" else made


def call(make: Make, **changes: Any) -> Arguments:
    """Arguments within the contract, but for those that are changed."""
    given = {
        "x": make((3, 4)),
        "pair": Pair(make((3, 4)), (1, None)),
        "state": State(make((4,)), 7),
        "first": [make((2,))],
        "second": [make((2,))],
        "cache": make((2, 3)),
        "turned": make((2, 3)),
        **changes,
    }
    args = tuple(given.pop(name) for name in ("x", "pair", "state", "first", "second"))
    return args, given


def tensor(shape: tuple[int, ...], dtype: str = "float32") -> Tensor:
    return torch.from_numpy(array(shape, dtype))


def array(shape: tuple[int, ...], dtype: str = "float32") -> Any:
    return np.zeros(shape, dtype=dtype)


def odd(make: Make) -> State:
    state = State(make((4,)), 7)
    state.more = 1  # type: ignore[attr-defined]
    return state


def with_shared_list(make: Make) -> Arguments:
    shared = [make((2,))]
    return call(make, first=shared, second=shared)


def with_shared_memory(make: Make) -> Arguments:
    both = make((4, 3))
    return call(make, cache=both[:2], turned=both[1:3])


def with_elements_that_meet(make: Make) -> Arguments:
    row = make((4,))
    windows = np.lib.stride_tricks.sliding_window_view
    cache = row.unfold(0, 3, 1) if make is tensor else windows(row, 3, writeable=True)
    return call(make, cache=cache)


REFUSED: dict[str, Callable[[Make], Arguments]] = {
    "unknown argument": lambda make: call(make, other=make((2,))),
    "unknown argument before others": lambda make: call(make, x=None, other=3),
    "too many": lambda make: ((*call(make)[0], *[1] * 5), {}),
    "nothing": lambda _: ((), {}),
    "missing": lambda make: (call(make)[0], {"cache": make((2, 3))}),
    "no array": lambda make: call(make, x="text"),
    "None": lambda make: call(make, x=None),
    "other dtype": lambda make: call(make, x=make((3, 4), "int64")),
    "other rank": lambda make: call(make, x=make((3, 4, 1))),
    "no dimensions": lambda make: call(make, x=make(())),
    "other size": lambda make: call(make, x=make((3, 5))),
    "size of an axis": lambda make: call(make, x=make((9, 4))),
    "another size of an axis": lambda make: call(make, pair=Pair(make((2, 4)), (1, None))),
    "first of two": lambda make: call(make, x=make((3, 5)), pair=None),
    "size before what comes later": lambda make: call(make, x=make((9, 4)), turned=None),
    "structure before memory": lambda make: call(make, turned=None, cache=make((2, 3)).T),
    "other class": lambda make: call(make, pair=(make((3, 4)), (1, None))),
    "other length": lambda make: call(make, pair=Pair(make((3, 4)), (1, None, 2))),
    "other constant": lambda make: call(make, pair=Pair(make((3, 4)), (1.0, None))),
    "array as a constant": lambda make: call(make, pair=Pair(make((3, 4)), (1, make((2,))))),
    "array as a container": lambda make: call(make, pair=make((3, 4))),
    "other attribute": lambda make: call(make, state=State(make((4,)), 8)),
    "one attribute more": lambda make: call(make, state=odd(make)),
    "other list": lambda make: call(make, first=[]),
    "other text": lambda make: call(make, mode="mean"),
    "other number": lambda make: call(make, scale=2),
    "not a number": lambda make: call(make, scale=float("nan")),
    "strides that are read": lambda make: call(make, turned=make((3, 2)).T),
    "one list twice": with_shared_list,
    "shared memory": with_shared_memory,
    "elements that meet": with_elements_that_meet,
}


@pytest.fixture(scope="module")
def entries() -> tuple[Entry, Entry]:
    args, kwargs = call(tensor)
    rows = Dim("rows", min=2, max=8, sizes=[2])
    program = hotstart.compile(
        Model().eval(),
        args,
        kwargs,
        dynamic_shapes={"x": {0: rows}, "pair": [{0: rows}, None]},
        options=hotstart.Options(compiler="op_by_op"),
    )
    (made,) = program.artifact.calls
    nothing: Any = None
    tensors = TensorArguments(None, nothing)
    arrays = ArrayArguments(nothing, nothing)
    return Entry(made, 0, tensors, list), Entry(made, 0, arrays, list)


def tried(entry: Entry, arguments: Arguments) -> ContractError | TypeError | None:
    try:
        return entry.refusal_of(*arguments)
    except TypeError as error:
        return error


@pytest.mark.parametrize("case", REFUSED)
def test_tensors_and_arrays_are_refused_alike(entries: tuple[Entry, Entry], case: str) -> None:
    of_tensors, of_arrays = entries
    expected = tried(of_tensors, REFUSED[case](tensor))
    found = tried(of_arrays, REFUSED[case](array))
    assert isinstance(expected, ContractError)
    made = str(expected).replace(TensorArguments.make_one, ArrayArguments.make_one)
    assert (type(found), str(found)) == (type(expected), made)


def test_tensors_and_arrays_are_taken_alike(entries: tuple[Entry, Entry]) -> None:
    of_tensors, of_arrays = entries
    assert of_tensors.refusal_of(*call(tensor)) is None
    assert of_arrays.refusal_of(*call(array)) is None


def test_arrays_are_refused_that_calls_cannot_write_to(entries: tuple[Entry, Entry]) -> None:
    _, of_arrays = entries
    frozen = array((2, 3))
    frozen.flags.writeable = False
    for cache in (frozen, frozen.tolist(), array((2, 3))[::-1]):
        error = of_arrays.refusal_of(*call(array, cache=cache))
        assert error is not None
        assert error.got == "torch.float32 [2, 3] on cpu that cannot be written to"
