"""What is compared before another machine compiles for this one."""

from __future__ import annotations

import pytest

from hotstart.artifact.surroundings import INSTRUCTIONS, different, surroundings

HERE = {"torch": "2.13.0", "C++ compiler": "g++ 12", INSTRUCTIONS: "avx avx2 fma"}


def test_equal_surroundings_differ_in_nothing() -> None:
    assert different(surroundings(), surroundings()) == []


def test_every_part_that_differs_is_named_with_both_values() -> None:
    assert different(HERE, {**HERE, "torch": "2.12.1", "C++ compiler": "none"}) == [
        "torch: expected 2.13.0, found 2.12.1",
        "C++ compiler: expected g++ 12, found none",
    ]


def test_a_part_that_only_one_side_has_differs() -> None:
    variable = {"environment TORCHINDUCTOR_CPP_SIMDLEN": "256"}
    name = "environment TORCHINDUCTOR_CPP_SIMDLEN"
    assert different({**HERE, **variable}, HERE) == [f"{name}: expected 256, found none"]
    assert different(HERE, {**HERE, **variable}) == [f"{name}: expected none, found 256"]


def test_another_processor_is_described_by_what_it_lacks_and_has_besides() -> None:
    other = {**HERE, INSTRUCTIONS: "avx avx512f fma"}
    (told,) = different(HERE, other)
    assert "lacks avx2 and has besides avx512f" in told
    assert different(HERE, other, leave_out=[INSTRUCTIONS]) == []


def test_variables_that_decide_how_torch_compiles_are_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = surroundings()
    monkeypatch.setenv("TORCHINDUCTOR_CPP_SIMDLEN", "256")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere")  # does not change what is compiled
    assert different(before, surroundings()) == [
        "environment TORCHINDUCTOR_CPP_SIMDLEN: expected none, found 256"
    ]
