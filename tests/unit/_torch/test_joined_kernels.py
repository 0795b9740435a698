"""Kernels that one call of the C++ compiler makes, and those that it cannot make."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor.exc import CppCompileError

from hotstart._torch.inductor import joined_kernels
from hotstart._torch.inductor.compile_fx import inductor_settings
from hotstart._torch.inductor.joined_kernels import AskedKernel, compile_kernels, join, kernels_in
from hotstart._torch.native.torch_library import LIBTORCH
from hotstart.partition.tokens import hash_bytes
from hotstart.records.artifact import Kernel
from hotstart.runtime.code.kernels import load_kernel
from tests.versions import joins_kernels

SETTINGS = inductor_settings({}, 1, False)


def adding(number: float, before: str = "") -> AskedKernel:
    """A kernel that adds a number to the first element, by a helper that has a common name."""
    source = f"""
#include <torch/csrc/inductor/cpp_prefix.h>
{before}
static float helper(float x) {{ return x + {float(number)}f; }}
extern "C" void kernel(float* x) {{ x[0] = helper(x[0]); }}
"""
    return AskedKernel(("float*",), source)


def loaded(path: str) -> Callable[..., Any]:
    blob = Path(path).read_bytes()
    return load_kernel(Kernel(hash_bytes(blob), blob))


def results(paths: Sequence[str]) -> list[float]:
    x = torch.zeros(1)
    found = []
    for path in paths:
        loaded(path)(x)
        found.append(x.item())
    return found


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which Inductor keeps what it compiles."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    return tmp_path


def needed_by(library: str) -> str:
    """The libraries that a library says it needs."""
    command = ["readelf", "-d", library]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "".join(line for line in told.splitlines() if "(NEEDED)" in line)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The commands that compile and link several kernels."""
    commands: list[Sequence[str]] = []
    run = joined_kernels._run

    def noted(command: Sequence[str]) -> str:
        commands.append(tuple(command))
        return run(command)

    monkeypatch.setattr(joined_kernels, "_run", noted)
    return commands


@joins_kernels
def test_one_call_compiles_several_kernels(ran: list[Sequence[str]]) -> None:
    kernels = {"one": adding(1), "two": adding(2), "three": adding(3)}
    paths = compile_kernels(kernels, SETTINGS)
    assert list(paths) == ["one", "two", "three"]
    assert results(list(paths.values())) == [1, 3, 6]
    assert sum("-c" in command for command in ran) == 1
    assert len(ran) == 4


def test_what_is_compiled_is_found_again(ran: list[Sequence[str]]) -> None:
    kernels = {"one": adding(1), "two": adding(2)}
    paths = compile_kernels(kernels, SETTINGS)
    ran.clear()
    assert compile_kernels(kernels, SETTINGS) == paths
    assert ran == []


@pytest.mark.thorough
def test_what_another_version_made_is_not_taken(
    ran: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compile_kernels({"a": adding(1)}, SETTINGS)
    ran.clear()
    monkeypatch.setattr(joined_kernels, "_how_they_are_made", lambda: "otherwise")
    assert set(compile_kernels({"a": adding(1)}, SETTINGS).values()).isdisjoint(first.values())
    assert ran


@pytest.mark.thorough
def test_a_kernel_offers_nothing_but_itself() -> None:
    paths = compile_kernels({"one": adding(1), "two": adding(2)}, SETTINGS)
    for path in paths.values():
        command = ["nm", "-D", "--defined-only", path]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert sorted(line.split()[-1] for line in told.splitlines()) == ["PyInit_kernel", "kernel"]


@pytest.mark.thorough
@joins_kernels
def test_a_kernel_that_needs_torch_is_linked_to_it_unread(ran: list[Sequence[str]]) -> None:
    vectors = """
static float wide(float x) {
    float made[64];
    at::vec::Vectorized<float>(x).erf().store(made);
    return made[0];
}
"""
    needs = adding(1, vectors)
    source = needs.source.replace("x[0] = helper(x[0])", "x[0] = wide(helper(x[0]))")
    paths = compile_kernels(
        {"needs": AskedKernel(("float*",), source), "plain": adding(1)}, SETTINGS
    )
    (first, second) = results(list(paths.values()))
    assert first == pytest.approx(torch.erf(torch.ones(())).item())
    assert second == pytest.approx(first + 1)
    assert [LIBTORCH in needed_by(path) for path in paths.values()] == [True, False]
    assert not [word for command in ran for word in command if word.startswith("-ltorch")]


@pytest.mark.thorough
@pytest.mark.parametrize("line", ["#define SIZE 3", "#  define SIZE 3", "#pragma  GCC optimize(0)"])
def test_what_holds_for_later_kernels_too_is_compiled_alone(
    ran: list[Sequence[str]], line: str
) -> None:
    paths = compile_kernels({"one": adding(1, line), "two": adding(2)}, SETTINGS)
    assert results(list(paths.values())) == [1, 3]
    assert sum("-c" in command for command in ran) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("count", [1, 2])
def test_a_kernel_whose_file_somebody_removed_is_compiled_again(count: int) -> None:
    kernels = {"one": adding(1), "two": adding(2)}
    kernels = dict(list(kernels.items())[:count])
    Path(compile_kernels(kernels, SETTINGS)["one"]).unlink()
    assert results(list(compile_kernels(kernels, SETTINGS).values())) == [1, 3][:count]


@pytest.mark.thorough
@joins_kernels
def test_a_source_that_only_compiles_alone_is_compiled_alone(ran: list[Sequence[str]]) -> None:
    special = "template <> struct std::hash<std::pair<char, int>> { int value; };"
    paths = compile_kernels({"one": adding(1, special), "two": adding(2)}, SETTINGS)
    assert results(list(paths.values())) == [1, 3]
    assert len(ran) == 1


@pytest.mark.thorough
def test_a_kernel_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(CppCompileError, match="nowhere"):
        compile_kernels({"one": adding(1), "two": adding(2, "int x = nowhere;")}, SETTINGS)


@pytest.mark.thorough
def test_bytes_do_not_depend_on_how_many_compilers_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernels = {str(number): adding(number) for number in range(6)}

    def blobs(jobs: int) -> list[bytes]:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / str(jobs)))
        paths = compile_kernels(kernels, {**SETTINGS, "compile_threads": jobs})
        return [Path(path).read_bytes() for path in paths.values()]

    assert blobs(1) == blobs(3)


@pytest.mark.thorough
@joins_kernels
def test_no_more_kernels_are_compiled_together_than_is_worth_it(ran: list[Sequence[str]]) -> None:
    compile_kernels({str(number): adding(number) for number in range(6)}, SETTINGS)
    assert sum("-c" in command for command in ran) == 2


@pytest.mark.thorough
@joins_kernels
def test_nothing_is_left_beside_kernels(folder: Path) -> None:
    compile_kernels({"one": adding(1), "two": adding(2)}, SETTINGS)
    endings = {".main" + file.name.partition(".main")[2] for file in folder.rglob("*main*")}
    assert endings == {".main.cpp", ".main.so", ".main.0.so", ".main.1.so"}


def test_headers_come_first_and_once() -> None:
    joined = join(["#include <a.h>\nint one;", "int two;\n  #include <a.h>\n#include <b.h>"])
    assert joined is not None
    lines = [line for line in joined.splitlines() if line.startswith("#include")]
    assert lines == ["#include <a.h>", "#include <b.h>"]
    assert joined.index("b.h") < joined.index("int one;")


def test_the_kernels_of_generated_code_are_read_from_it() -> None:
    source = """
async_compile = AsyncCompile()
cpp_fused_add_0 = async_compile.cpp_pybinding(['float*', 'const int64_t'], r'''
text''')
async_compile.wait(globals())
"""
    kernel = AskedKernel(("float*", "const int64_t"), "\ntext")
    assert kernels_in(source) == {"cpp_fused_add_0": kernel}


@pytest.mark.slow
def test_a_kernel_that_is_called_all_the_same_is_compiled_then() -> None:
    x = torch.zeros(1)
    adding(2)(x)
    assert x.item() == 2
