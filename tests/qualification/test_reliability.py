"""A few rounds of every fault; `make reliability` runs as many as `docs/reliability.md` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qualification.reliability.full import can_mount
from qualification.reliability.run import FAULTS, FIGURES, PAGE, page

Found = Callable[..., dict[str, Any]]


@pytest.fixture
def found(python: Callable[..., str]) -> Found:
    """What a fault's own process prints."""

    def run(fault: str, *arguments: object) -> dict[str, Any]:
        told = python("-m", f"qualification.reliability.{fault}", *arguments)
        figures: dict[str, Any] = json.loads(told)
        return figures

    return run


def only(figures: dict[str, Any], *names: str) -> dict[str, Any]:
    """Some of the figures that are not zero."""
    return {name: figures[name] for name in names if figures[name]}


@pytest.mark.slow
def test_killed_writers_lose_and_damage_nothing(found: Found, tmp_path: Path) -> None:
    figures = found("kills", tmp_path / "store", 15)
    assert figures["committed"] > 15
    assert figures["leftovers"] > 0
    assert (figures["lost"], figures["damaged"], figures["left_after_tidying"]) == (0, 0, 0)


@pytest.mark.slow
def test_of_processes_that_start_at_once_one_compiles(found: Found, tmp_path: Path) -> None:
    figures = found("starts", tmp_path / "store", 3)
    assert (figures["compiled"], figures["later_compiled"], figures["wrong"]) == (1, 0, 0)


@pytest.mark.slow
def test_what_is_in_use_is_not_tidied_away(found: Found, tmp_path: Path) -> None:
    figures = found("tidying", tmp_path / "store", 3)
    assert figures["held"] > 20
    assert figures["removed"] > 20
    assert figures["damaged"] == 0
    # Between a last look at a file and its removal lie some microseconds.
    assert figures["lost"] <= figures["claimed"] / 50


@pytest.mark.slow
def test_damaged_files_are_never_used_and_made_anew(found: Found, tmp_path: Path) -> None:
    for way, figures in found("damage", tmp_path, 9).items():
        assert figures["rounds"] == 1, way
        assert figures["noticed"] + figures["verified"] == 1, way
        assert only(figures, "wrong", "failed", "lasting") == {}, way


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["quota", pytest.param("mounted", marks=pytest.mark.slow)])
def test_starts_go_on_where_there_is_no_room(how: str, found: Found, tmp_path: Path) -> None:
    if how == "mounted" and not can_mount():
        pytest.skip("this user cannot mount a small file system")
    figures = found("full", tmp_path, 1, how)
    assert figures["starts"] == 11
    assert only(figures, "wrong", "failed", "half", "lasting", "stale") == {}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["locks", "no-locks"])
def test_two_machines_share_a_folder(how: str, found: Found, tmp_path: Path) -> None:
    figures = found("machines", tmp_path, 0, how)
    assert figures["starts"] >= 12
    assert only(figures, "wrong", "failed", "lost", "damaged", "unfinished") == {}


@pytest.mark.slow
def test_a_folder_that_moves_is_found_again(found: Found, tmp_path: Path) -> None:
    figures = found("moved", tmp_path, 3)
    assert figures["starts"] == 9
    assert only(figures, "missed", "wrong", "pieces_missed") == {}


@pytest.mark.slow
def test_versions_leave_each_others_files_alone(found: Found, tmp_path: Path) -> None:
    figures = found("versions", tmp_path, 8)
    assert figures["starts"] == 8
    assert figures["first"] > 3
    bad = ("again", "wrong", "failed", "damaged", "gone", "over", "touched")
    assert only(figures, *bad) == {}


@pytest.mark.slow
def test_a_cache_with_many_programs_is_used_as_any_other(found: Found, tmp_path: Path) -> None:
    figures = found("many", tmp_path, 300)
    assert (figures["programs"], figures["right"]) == (300, True)


def test_the_page_is_made_of_the_figures() -> None:
    figures = json.loads(FIGURES.read_text())
    assert figures.keys() == FAULTS.keys()
    written = PAGE.read_text().rpartition("\n\n")[0]
    assert page(figures).rpartition("\n\n")[0] == written
