"""Programs of several processes, each of which is a rank of `torch.distributed` over gloo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ranks import calls, cases
from tests.integration.ranks.launch import ranks

Python = Callable[..., str]


@pytest.fixture(scope="module")
def llamas(python: Python, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A Llama over two ranks, compiled by Inductor."""
    return ranks(python, cases.compiled_llama, 2, tmp_path_factory.mktemp("llama"))


@pytest.mark.thorough
def test_a_llama_over_two_ranks_gives_what_one_process_gives(llamas: list[Any]) -> None:
    for one in llamas:
        assert max(one["errors"]) < 1e-5  # compiled, of another size, loaded, without a model


def test_one_rank_compiles_and_the_others_load(llamas: list[Any]) -> None:
    assert len({one["key"] for one in llamas}) == 1
    assert sorted(one["compiled"] for one in llamas) == [False, True]
    assert [one["kept"] for one in llamas] == [1, 1]


def test_layers_share_units_between_their_collectives(llamas: list[Any]) -> None:
    for one in llamas:
        pieces, unique = one["pieces"]
        assert (pieces, unique) == (17, 5)
        assert one["op by op"] == 0


def test_the_report_names_the_step_that_has_no_native_form(llamas: list[Any]) -> None:
    for one in llamas:
        assert "`_c10d_functional.all_reduce`: other processes take part" in one["report"]


@pytest.mark.slow
def test_a_llama_over_four_ranks_gives_what_one_process_gives(
    python: Python, tmp_path: Path
) -> None:
    found = ranks(python, cases.op_by_op_llama, 4, tmp_path)
    assert all(max(one["errors"]) < 1e-5 for one in found)
    assert len({one["key"] for one in found}) == 1
    assert sum(one["compiled"] for one in found) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("size", [2, 4])
def test_experts_over_ranks_give_what_one_process_gives(
    python: Python, tmp_path: Path, size: int
) -> None:
    found = ranks(python, cases.experts, size, tmp_path)
    assert all(max(one["errors"]) < 1e-5 for one in found)
    for number in range(2):
        assert sum(one["compiled"][number] for one in found) == 1


@pytest.mark.thorough
def test_nothing_that_waits_for_others_runs_while_one_rank_builds(
    python: Python, tmp_path: Path
) -> None:
    for one in ranks(python, cases.own_operators, 2, tmp_path):
        assert one["error"] == 0.0
        assert "found hotstart_ranks::add_up, which may wait for other processes" in one["save"]


@pytest.mark.thorough
def test_ranks_with_uneven_shares_have_programs_of_their_own(
    python: Python, tmp_path: Path
) -> None:
    found = ranks(python, cases.uneven, 2, tmp_path)
    assert all(one["error"] < 1e-6 for one in found)
    assert len({one["key"] for one in found}) == 2
    for one in found:
        assert one["other"].startswith("ModelMismatch: ")
        assert "up.weight: expected torch.float32" in one["other"]


def test_collectives_give_what_they_give_in_eager(python: Python, tmp_path: Path) -> None:
    for one in ranks(python, cases.collectives, 2, tmp_path):
        assert one == {name: [True, True, True] for name in calls.COLLECTIVES}


@pytest.mark.thorough
def test_collectives_in_regions_on_views_and_in_torch_compile(
    python: Python, tmp_path: Path
) -> None:
    for one in ranks(python, cases.regions, 2, tmp_path):
        assert set(one) > {"autocast", "view", "argument", "weight", "rows", "torch.compile"}
        assert max(one.values()) == 0.0


@pytest.mark.thorough
def test_other_collectives_are_refused_when_they_are_traced(python: Python, tmp_path: Path) -> None:
    for one in ranks(python, cases.refusals, 2, tmp_path):
        assert set(one) == {*calls.REFUSED, "dtensor"}
        for name, error in one.items():
            assert error.startswith("CaptureError: "), name
        assert "all_reduce_ is none of those" in one["in place"]
        assert "not waited for exactly once" in one["not waited for"]
        assert "inside of torch.cond, checkpoint" in one["checkpointed"]
        assert "DTensor.to_local" in one["dtensor"]


@pytest.mark.thorough
def test_a_rank_that_is_killed_while_it_builds_leaves_the_others_with_an_error(
    python: Python, tmp_path: Path
) -> None:
    killed, left = ranks(python, cases.dies, 2, tmp_path)
    assert killed is None
    assert left["built_s"] < 60  # the lock was free again
    assert "closed" in left["call"]
    assert left["took_s"] < 90
