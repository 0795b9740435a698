"""Memory that nothing was written to holds what it is told to."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import hotstart
from hotstart._torch.running import fresh_memory
from hotstart._torch.running.fresh_memory import filled_memory

SIZES = (3, 100, 70_000)

MADE: dict[str, Callable[[int], Tensor]] = {
    "empty": lambda n: torch.empty(n),
    "empty of integers": lambda n: torch.empty(n, dtype=torch.int64),
    "empty of truths": lambda n: torch.empty(n, dtype=torch.bool),
    "empty_like": lambda n: torch.empty_like(torch.full((n,), 5.0)),
    "empty_strided": lambda n: torch.empty_strided((n, 2), (1, n)),
    "empty_permuted": lambda n: torch.empty_permuted((n, 2), (1, 0)),
    "new_empty": lambda n: torch.full((2,), 5.0).new_empty(n),
    "new_empty_strided": lambda n: torch.full((2,), 5.0).new_empty_strided((n, 2), (1, n)),
    "resize_": lambda n: torch.full((2,), 5.0).resize_(n)[2:],
    "resize_as_": lambda n: torch.full((2,), 5.0).resize_as_(torch.ones(n))[2:],
    "new": lambda n: torch.full((2,), 5.0).new(n),
    "Tensor": lambda n: torch.Tensor(n),
    "prims": lambda n: torch.ops.prims.empty_strided.default(
        (n,), (1,), dtype=torch.float32, device=torch.device("cpu"), requires_grad=False
    ),
}


def leave_traces() -> None:
    """Free memory that holds something, for what is allocated next."""
    for size in SIZES:
        for dtype in (torch.float32, torch.int64):
            _ = [torch.full((size,), 7, dtype=dtype) for _ in range(20)]


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("value", [0, 1])
def test_what_operators_return_unwritten_holds_the_number(name: str, value: int) -> None:
    for size in SIZES:
        leave_traces()
        with filled_memory(value):
            assert set(MADE[name](size).flatten().tolist()) == {value}


def test_what_code_allocates_past_the_dispatcher_is_zero() -> None:
    for size in SIZES:
        leave_traces()
        with filled_memory():
            made = torch._C._dynamo.guards._empty_strided_cpu((size,), (1,), torch.float32)
            assert not made.any()


@pytest.mark.thorough
@pytest.mark.parametrize("value", [0, 1])
def test_what_is_undefined_in_a_compiled_program_is_the_same_in_every_run(value: int) -> None:
    def partly(x: Tensor) -> tuple[Tensor, Tensor]:
        out = torch.empty(100, 4)
        out[:3] = x * 2
        return out, out + 1

    for compiler in ("op_by_op", "inductor"):
        options = hotstart.Options(compiler=compiler)  # type: ignore[arg-type]
        program = hotstart.compile(partly, (torch.ones(3, 4),), options=options)
        results = []
        for _ in range(2):
            leave_traces()
            with filled_memory(value):
                results.append(program(torch.ones(3, 4)))
        for first, second in zip(*results, strict=True):
            torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)


def test_the_body_of_an_operator_is_reached() -> None:
    @torch.library.custom_op("hotstart_memory::allocate", mutates_args=())
    def allocate(x: Tensor) -> Tensor:
        return torch.empty(len(x))

    leave_traces()
    with filled_memory():
        assert not allocate(torch.ones(100)).any()


def test_contents_that_were_written_stay() -> None:
    grown = torch.full((4,), 5.0)
    with filled_memory(1):
        assert torch.full((3,), 2.0).tolist() == [2, 2, 2]
        assert grown.resize_(6).tolist() == [5, 5, 5, 5, 1, 1]
        assert torch.empty(3).resize_(2).tolist() == [1, 1]
        assert torch.zeros(2).tolist() == [0, 0]


def test_it_ends_when_the_last_one_that_wanted_it_ends() -> None:
    def zeroed() -> bool:
        leave_traces()
        made = [torch.empty(100) for _ in range(20)]
        return not any(bool(one.any()) for one in made)

    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with filled_memory():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with filled_memory():
        pass
    assert zeroed()  # the thread still wants it
    leave.set()
    thread.join()
    assert not zeroed()


def test_no_operator_that_returns_unwritten_memory_is_forgotten() -> None:
    """By name, over all that torch registers; those that write what they return are listed."""
    names = torch._C._dispatch_get_all_op_names()
    named = {name for name in names if re.search("empty|uninit", name)}
    torchs = {name for name in named if name.startswith(("aten::", "prims::", "inductor::"))}
    assert torchs == {*filter(fresh_memory._UNWRITTEN.match, names)}
    assert {"aten::empty.memory_format", "aten::new_empty", "prims::empty"} <= torchs


def test_the_allocator_can_be_told() -> None:
    assert fresh_memory._allocator().can_zero
