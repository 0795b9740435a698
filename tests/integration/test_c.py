"""Programs that are served from C: the same answers, checks and errors."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from hotstart import ContractError
from tests.integration import c_api
from tests.integration.alone import IDS, MASK, Saved
from tests.integration.c_api import CONTRACT, At, Library, Program, Refused, equal
from tests.opening import opens_library_alone

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]


@pytest.fixture
def served(library: Library, saved: Saved) -> Any:
    program = Program(library, saved.file, saved.weights)
    yield program
    program.close()


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result of `Encoder`, in order."""
    return [result["pooled"], *result["all"]]


@pytest.mark.thorough
def test_a_program_gives_the_bits_that_it_gives_in_python(served: Program, saved: Saved) -> None:
    for rows, length in ((2, 4), (1, 1), (4, 9), (3, 1)):
        ids = torch.arange(rows * length).reshape(rows, length) % 11
        mask = torch.rand(rows, length)
        assert equal(served(ids, mask), flat(saved.program(ids, mask))), (rows, length)


def test_a_program_says_what_it_takes_and_gives(served: Program) -> None:
    assert served.calls() == 1
    assert served.describe() == {
        "name": "",
        "arguments": [
            ("ids", torch.int64, ["rows", "seq"]),
            ("mask", torch.float32, ["rows", "seq"]),
        ],
        "written": [False, False],
        "axes": [("rows", 1, 4, "1..4"), ("seq", 1, 9, "1..9")],
        "results": ["pooled", "all[0]", "all[1]"],
    }


def test_arguments_may_lie_in_memory_in_other_ways(
    served: Program, saved: Saved, library: Library
) -> None:
    expected = flat(saved.program(IDS, MASK))
    turned = IDS.t().contiguous().t(), torch.stack([MASK, MASK], -1)[..., 0]
    assert turned[0].stride() == (1, 2)
    assert equal(served(*turned), expected)
    results = served.kept(IDS, MASK, dense=True)
    assert equal(c_api.read(results), expected)
    library.free(results)


WRONG: list[tuple[Tensor, ...]] = [
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 3)),
    (torch.ones(1, 10, dtype=torch.int64), torch.ones(1, 10)),
    (torch.ones(5, 1, dtype=torch.int64), torch.ones(5, 1)),
    (torch.ones(2, dtype=torch.int64), torch.ones(1, 2)),
    (torch.ones(0, 2, dtype=torch.int64), torch.ones(0, 2)),
    (torch.ones(1, 2, dtype=torch.int64),),
    (),
    (torch.ones(1, 2), torch.ones(1, 2)),
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.float64)),
    (torch.ones(1, 2, dtype=torch.int64), torch.ones(1, 2, 1)),
]


@pytest.mark.parametrize("given", WRONG, ids=lambda given: "-".join(str(t.shape) for t in given))
def test_a_call_outside_of_the_contract_gets_the_words_of_python(
    served: Program, saved: Saved, given: tuple[Tensor, ...]
) -> None:
    with pytest.raises(ContractError) as expected:
        saved.program(*given)
    with pytest.raises(Refused) as found:
        served(*given)
    assert str(found.value) == str(expected.value)
    assert found.value.status == CONTRACT


def test_what_only_c_can_pass_is_refused(served: Program, library: Library) -> None:
    with pytest.raises(Refused, match="positional arguments: got 3, takes at most 2"):
        served(IDS, MASK, MASK)
    with pytest.raises(Refused, match="call: got 1, takes a number below 1"):
        served(IDS, MASK, call=1)
    odd = torch.zeros(4 * MASK.numel() + 1, dtype=torch.uint8)[1:]
    with pytest.raises(Refused, match=r"mask: got memory at \d+, takes memory at a multiple of 4"):
        served(IDS, At(odd.data_ptr(), MASK))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="ids: got a null pointer"):
        served(At(0, IDS), MASK)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"ids: got strides \(-4, 1\), takes strides of zero or more"):
        served(At(IDS.data_ptr(), IDS, (-4, 1)), MASK)  # type: ignore[arg-type]
    assert library.open(None, None, None) == CONTRACT
    assert library.last_error() == b"file: got a null pointer, takes a pointer"


def test_results_outlive_the_program(library: Library, saved: Saved) -> None:
    program = Program(library, saved.file, saved.weights)
    results = program.kept(IDS, MASK)
    program.close()
    assert equal(c_api.read(results), flat(saved.program(IDS, MASK)))
    library.free(results)


def test_threads_share_a_program(served: Program, saved: Saved) -> None:
    def work(length: int) -> None:
        ids, mask = torch.full((1, length), length), torch.ones(1, length)
        expected = flat(saved.program(ids, mask))
        same[length] = all(equal(served(ids, mask), expected) for _ in range(100))

    same: dict[int, bool] = {}
    threads = [threading.Thread(target=work, args=(length,)) for length in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == dict.fromkeys(range(1, 9), True)
