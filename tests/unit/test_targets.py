"""What a target allows, and which machine builds for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from torch import fx, nn

import hotstart
from hotstart import OptionsError, backend
from hotstart._torch.inductor.cross import libc_of
from hotstart.artifact import fingerprint
from hotstart.artifact.compatibility import misfits
from hotstart.cache.store import Store
from hotstart.cache.stored_pieces import StoredPieces
from hotstart.compilers import InductorCompiler
from hotstart.compilers.choose import require_target
from hotstart.compilers.inductor.packing_rule import Processor, processor_of
from hotstart.targets import (
    VECTOR_BITS,
    TargetName,
    allowed_instructions,
    is_foreign,
    marks_of,
    missing_instructions,
)

NEHALEM = (
    *("cmov", "cx16", "cx8", "lahf_lm", "mmx", "pni"),
    *("popcnt", "sse", "sse2", "sse4_1", "sse4_2", "ssse3"),
)
HASWELL = (*NEHALEM, "abm", "aes", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "rdrand")
SKYLAKE = (*HASWELL, "adx", "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
"""Flags of processors, as a fingerprint has them."""

LEVELS: tuple[TargetName, ...] = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


def on(monkeypatch: pytest.MonkeyPatch, flags: Sequence[str], machine: str = "x86_64") -> None:
    """Make this machine look like another."""
    real = fingerprint.host()
    monkeypatch.setattr(fingerprint, "host", lambda: {**real, "instructions": sorted(flags)})
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))


def test_native_code_may_use_all_that_the_machine_has() -> None:
    assert allowed_instructions("native", ["sse2", "avx9"]) == ["avx9", "sse2"]
    assert missing_instructions("native", ["sse2"]) == []


@pytest.mark.parametrize("target", LEVELS)
def test_what_a_level_allows_does_not_depend_on_the_machine(target: TargetName) -> None:
    assert allowed_instructions(target, SKYLAKE) == allowed_instructions(target, [])


def test_every_level_has_all_of_the_one_below_and_more() -> None:
    low, middle, high = (set(allowed_instructions(target, ())) for target in LEVELS)
    assert low < middle < high
    assert not [flag for flag in low if flag.startswith(("avx", "bmi", "fma"))]
    assert not [flag for flag in middle if flag.startswith("avx512")]


def test_every_level_is_a_target_with_vectors() -> None:
    assert get_args(TargetName) == ("native", *LEVELS, "aarch64")
    assert [*VECTOR_BITS.items()] == [*zip((*LEVELS, "aarch64"), (0, 256, 512, 128), strict=True)]


@pytest.mark.parametrize("target", LEVELS)
def test_all_that_a_level_allows_is_looked_for_on_a_machine(target: TargetName) -> None:
    flags = allowed_instructions(target, ())
    line = f"flags : {' '.join(flags)}".encode()
    assert fingerprint.cpu_instructions([line]) == flags


@pytest.mark.parametrize(
    ("flags", "fits"),
    [(NEHALEM, LEVELS[:1]), (HASWELL, LEVELS[:2]), (SKYLAKE, LEVELS)],
    ids=["nehalem", "haswell", "skylake"],
)
def test_a_machine_loads_and_builds_the_levels_that_it_is_of(
    flags: Sequence[str], fits: Sequence[TargetName], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, SKYLAKE)
    files = {target: {**fingerprint.allowed(target), "target": target} for target in LEVELS}
    on(monkeypatch, flags)
    here = fingerprint.host()
    assert [target for target in LEVELS if not misfits(files[target], here)] == [*fits]
    assert [target for target in LEVELS if not missing_instructions(target, flags)] == [*fits]


def test_a_lesser_machine_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, SKYLAKE)
    file = fingerprint.allowed("x86-64-v3")
    on(monkeypatch, [flag for flag in HASWELL if flag not in ("fma", "movbe")])
    assert misfits(file, fingerprint.host()) == [
        ("instructions", "a CPU with fma, movbe", "a CPU without")
    ]


def test_a_machine_below_the_target_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, HASWELL)
    require_target("x86-64-v3")
    with pytest.raises(OptionsError, match="without avx512bw, avx512cd, avx512dq, avx512f, avx51"):
        require_target("x86-64-v4")
    options = hotstart.Options(compiler="op_by_op", target="x86-64-v4")
    with pytest.raises(OptionsError, match="target: expected a machine that runs programs for"):
        hotstart.compile(nn.Identity(), (0,), options=options)


def test_another_architecture_builds_for_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, ["asimd", "sve"], "aarch64")
    require_target("native")
    with pytest.raises(OptionsError, match="found aarch64"):
        require_target("x86-64-v2")


def test_without_a_cross_compiler_an_x86_builds_nothing_for_arm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(monkeypatch, HASWELL)
    monkeypatch.setenv("PATH", str(tmp_path))
    options = hotstart.Options(compiler="op_by_op", target=("native", "aarch64"))
    with pytest.raises(OptionsError, match=r"(?s)aarch64-linux-gnu-g\+\+, found none.*do: install"):
        hotstart.compile(nn.Identity(), (0,), options=options)


def test_one_of_the_targets_is_for_this_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, HASWELL)
    found = r"one that this machine runs, found 'aarch64'"
    with pytest.raises(OptionsError, match=found):
        hotstart.compile(nn.Identity(), (0,), options=hotstart.Options(target="aarch64"))
    with pytest.raises(OptionsError, match=found):
        backend.hotstart(fx.symbolic_trace(nn.Identity()), [], options={"target": "aarch64"})


def test_a_c_library_without_headers_is_no_cross_compiler() -> None:
    with pytest.raises(OptionsError, match="has the headers of glibc, found none"):
        libc_of("false")


def test_arm_builds_for_arm_as_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, ["asimd", "fp", "sve"], "aarch64")
    require_target("aarch64")
    assert not is_foreign("aarch64")
    assert is_foreign("x86-64-v2")
    on(monkeypatch, HASWELL)
    assert is_foreign("aarch64")


def test_code_for_arm_fits_machines_that_are_like_this_one_but_for_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, HASWELL)
    here, parts = fingerprint.host(), fingerprint.allowed("aarch64", "glibc 2.36")
    changed = {name for name in parts if parts[name] != here[name]}
    assert changed <= {"python", "platform", "instructions", "libc"}
    assert parts["platform"] == "linux-aarch64"
    assert parts["python"] == here["python"].replace("x86_64", "aarch64")
    assert parts["libc"] == "glibc 2.36"


def test_programs_of_two_architectures_are_told_apart_and_of_one_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, HASWELL)
    assert marks_of(("native", "x86-64-v2"), "native") == []
    both: tuple[TargetName, ...] = ("native", "aarch64")
    assert [marks_of(both, each) for each in both] == [["sse2"], ["asimd"]]


@pytest.mark.parametrize("given", ["x86-64-v5", "", None, [], ("native",) * 2, ["haswell"]])
def test_only_known_targets_are_taken(given: Any) -> None:
    with pytest.raises(OptionsError, match=r"target: got .*, takes one of"):
        hotstart.Options(target=given)


def test_an_architecture_of_inductors_is_none_beside_a_target() -> None:
    with pytest.raises(OptionsError, match=r"cpp\.march='znver2' with target='x86-64-v3'"):
        InductorCompiler({"cpp.march": "znver2"}, 1, target="x86-64-v3")


def test_a_level_decides_about_packing_whatever_the_machine() -> None:
    assert processor_of("x86-64-v2") == Processor(vectors=0, intel=False)
    assert processor_of("x86-64-v3") == Processor(vectors=256, intel=False)
    assert processor_of("x86-64-v4") == Processor(vectors=512, intel=False)


def test_every_target_has_pieces_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)  # a compiler that is not called
    compilers = [InductorCompiler({}, 1, target=target) for target in get_args(TargetName)]
    assert len({compiler.token() for compiler in compilers}) == len(compilers)
    again = [compiler.without("some_pass").token() for compiler in compilers]
    assert len(set(again)) == len(compilers)


def names(store: Store) -> dict[str, str]:
    """The names that a piece has in a store, by target."""
    return {target: StoredPieces(store, target)._name("key") for target in get_args(TargetName)}


def test_machines_share_pieces_of_a_level_and_no_native_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, check=False)
    on(monkeypatch, SKYLAKE)
    built = names(store)
    on(monkeypatch, HASWELL)
    found = names(store)
    shared = {target for target in built if built[target] == found[target]}
    assert shared == {*LEVELS, "aarch64"}
    assert len(set(built.values())) == len(built)


def test_several_targets_are_kept_best_first() -> None:
    given = hotstart.Options(target=["aarch64", "x86-64-v2", "native", "x86-64-v4", "x86-64-v3"])
    assert given.targets == ("native", "x86-64-v4", "x86-64-v3", "x86-64-v2", "aarch64")
    assert given.target == given.targets
    assert hotstart.Options(target=["x86-64-v3"]) == hotstart.Options(target="x86-64-v3")


def test_a_machine_that_runs_one_target_of_several_builds_neither(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on(monkeypatch, HASWELL)
    options = hotstart.Options(compiler="op_by_op", target=("x86-64-v3", "x86-64-v4"))
    with pytest.raises(OptionsError, match="expected a machine that runs programs for x86-64-v4"):
        hotstart.compile(nn.Identity(), (0,), options=options)
