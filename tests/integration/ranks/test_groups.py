"""Groups of processes are bound when a program is loaded; ranks that were asked for are guards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ranks import calls, cases
from tests.integration.ranks.launch import ranks

Python = Callable[..., str]


@pytest.fixture(scope="module")
def bound(python: Python, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two ranks found that loaded a program for other groups."""
    return ranks(python, cases.groups, 2, tmp_path_factory.mktemp("groups"))


@pytest.mark.thorough
def test_a_program_runs_in_the_group_that_there_is(bound: list[Any]) -> None:
    for one in bound:
        assert len(one["bound"]) == 6
        assert set(one["bound"].values()) == {5.0}
        assert "compiled" not in one["loaded"]


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("not given", "found none"),
        ("too small", "found one of 1"),
        ("given too small", "found one of 1"),
        ("not initialised", "found torch.distributed is not initialised"),
        ("ended", "found one that was destroyed"),
    ],
)
def test_a_group_that_does_not_fit_is_an_error(bound: list[Any], case: str, found: str) -> None:
    for one in bound:
        assert one["errors"][case].startswith("GroupMismatch: ")
        assert f"group 'tp': expected a group of 2 processes, {found}" in one["errors"][case]
        assert "hotstart.load(..., groups={name: group})" in one["errors"][case]


def test_a_smaller_group_in_the_models_place_is_noticed_in_a_call(bound: list[Any]) -> None:
    for one in bound:
        error = one["errors"]["replaced by a smaller"]
        assert "group: expected group of 2, found group of 1" in error


def test_groups_are_given_by_their_names(bound: list[Any]) -> None:
    for one in bound:
        assert one["errors"]["unknown"] == "OptionsError: groups: got 'dp', takes 'tp'"
        assert "groups['tp']: got a int, takes a ProcessGroup" in one["errors"]["no group"]


@pytest.mark.thorough
def test_two_groups_are_not_one_group_twice(python: Python, tmp_path: Path) -> None:
    for one in ranks(python, cases.two_groups, 2, tmp_path):
        assert one["groups"] == [2, 1]
        assert one["values"] == [22.0, 22.0]
        assert "expected the group that it is elsewhere, found another" in one["one for two"]
        assert "expected another group than 'group_0', found the same" in one["two for one"]


@pytest.mark.thorough
def test_one_build_serves_all_rows_of_a_mesh(python: Python, tmp_path: Path) -> None:
    found = ranks(python, cases.meshes, 4, tmp_path)
    for name, keys in (("group", ["tp"]), ("mesh", ["dp", "tp"]), ("closure", ["tp"])):
        digest = found[0][name][-1]
        assert [one[name] for one in found] == [[0.0, keys, 1, digest]] * 4


@pytest.mark.slow
def test_a_program_that_knows_its_rank_is_for_that_rank(python: Python, tmp_path: Path) -> None:
    for number, one in enumerate(ranks(python, cases.own_rank, 2, tmp_path)):
        assert set(one) == set(calls.ASKING)
        for name, (right, with_model, with_weights, again) in one.items():
            assert right, name
            assert again, name
            for error in (with_model, with_weights):
                assert "Mismatch: " in error, name
                assert f"expected {1 - number}, found {number}" in error, name
