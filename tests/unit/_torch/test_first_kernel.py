"""What is asked of the C++ compiler before the first kernel, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._inductor import codecache, config
from torch._inductor.cpp_builder import CppBuilder
from torch._inductor.cpu_vec_isa import VecAVX2, VecISA

from hotstart._torch.inductor.compile_fx import inductor_settings
from hotstart._torch.inductor.first_kernel import vectors_by_compiler_alone, warm_up_inductor


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The commands of compilers that run, with a folder of precompiled headers of their own."""
    monkeypatch.setattr(codecache, "_HEADER_DIR", str(tmp_path))
    commands: list[str] = []
    build = CppBuilder.build

    def noted(self: CppBuilder) -> None:
        commands.append(self.get_command_line())
        build(self)

    monkeypatch.setattr(CppBuilder, "build", noted)
    return commands


def has(vectors: VecISA, code: str) -> bool:
    with vectors_by_compiler_alone():
        return vectors.check_build(code)


def test_what_a_compiler_can_is_asked_once(built: list[str]) -> None:
    assert has(VecAVX2(), "int one() { return 1; }")
    assert has(VecAVX2(), "int one() { return 1; }")
    (command,) = built
    assert " -c " in command  # nothing is linked, and nothing can be loaded


def test_what_a_compiler_cannot_is_no_part_of_the_processor(built: list[str]) -> None:
    assert not has(VecAVX2(), "int one() { return none; }")
    assert not has(VecAVX2(), "int one() { return none; }")
    assert len(built) == 2


def test_other_vectors_are_asked_for_again(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert has(VecAVX2(), "int one() { return 1; }")
    monkeypatch.setattr(VecAVX2, "_arch_flags", "-mavx2 -mavx512bf16")
    assert has(VecAVX2(), "int one() { return 1; }")
    assert len(built) == 2


def test_a_warm_up_compiles_no_kernel(
    monkeypatch: pytest.MonkeyPatch, built: list[str], tmp_path: Path
) -> None:
    def header(name: str, *_: object, **__: object) -> str:
        made.append(name)
        return str(tmp_path / "header.h")

    made: list[str] = []
    monkeypatch.setattr(codecache, "_precompile_header", header)
    warm_up_inductor(inductor_settings({}, 1, False))
    assert len(made) == int(config.cpp_cache_precompile_headers)
    assert not any("-shared" in command for command in built)
