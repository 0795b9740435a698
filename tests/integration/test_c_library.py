"""The library for C serves without Python, and the command that compiles it says what it lacks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hotstart
from hotstart import Dim
from hotstart.c.library import build_library
from hotstart.cli import main
from tests.integration.alone import Saved
from tests.opening import opens_library_alone

pytestmark = [
    pytest.mark.usefixtures("kept_pieces"),
    opens_library_alone,
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed.c"


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return (x * attention_mask.unsqueeze(-1)).sum(1)


@pytest.mark.thorough
def test_a_program_in_c_serves_without_python(c_library: Path, tmp_path: Path) -> None:
    seq = Dim("seq", min=1, max=9, sizes=[1])
    shapes = {name: {1: seq} for name in ("input_ids", "attention_mask")}
    ids = torch.tensor([[1, 2, 3]])
    saved = Saved(tmp_path, Embedder(), ids, torch.ones_like(ids), dynamic_shapes=shapes)
    built = tmp_path / "embed"
    flags = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-Wl,-rpath,{c_library}")
    command = ["cc", str(EXAMPLE), f"-I{c_library}", f"-L{c_library}", *flags, "-lhotstart"]
    subprocess.run([*command, "-o", str(built)], check=True)
    with subprocess.Popen(
        [str(built), str(saved.file), str(saved.weights)],
        env={}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for row in ([1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 0, 1, 2]):
            process.stdin.write(" ".join(map(str, row)) + "\n")
            process.stdin.flush()
            found = torch.tensor(list(map(float, process.stdout.readline().split())))
            given = torch.tensor([row])
            assert found.equal(saved.program(given, torch.ones_like(given))[0])
        mapped = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
        libraries = {Path(line.split()[-1]).name for line in mapped if ".so" in line}
        assert "libtorch_cpu.so" in libraries
        assert not [name for name in libraries if "python" in name]
        process.stdin.close()
        assert process.wait(60) == 0


def test_the_header_is_one_for_cpp_too(c_library: Path, tmp_path: Path) -> None:
    source = tmp_path / "uses.cpp"
    source.write_text('#include "hotstart.h"\nint main() { return hotstart_version()[0] == 0; }\n')
    command = ["c++", str(source), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    command += ["-Wall", "-Wextra", "-Werror", "-pedantic", "-lhotstart", "-o"]
    subprocess.run([*command, str(tmp_path / "uses")], check=True)
    subprocess.run([str(tmp_path / "uses")], check=True, env={})


def test_the_example_of_the_docs_compiles(c_library: Path, tmp_path: Path) -> None:
    text = (EXAMPLE.parents[1] / "docs" / "c.md").read_text()
    source = tmp_path / "serve.c"
    source.write_text(text.partition("```c\n")[2].partition("```")[0])
    command = ["cc", str(source), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    command += ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-lhotstart", "-o"]
    subprocess.run([*command, str(tmp_path / "serve")], check=True)
    done = subprocess.run(
        [str(tmp_path / "serve")],
        env={}, cwd=tmp_path, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "model.hot: expected a file that can be read, found: No such file" in done.stderr


def test_torch_that_is_not_there_is_named(c_library: Path, saved: Saved, tmp_path: Path) -> None:
    built = tmp_path / "embed"
    command = ["cc", str(EXAMPLE), f"-I{c_library}", f"-L{c_library}", f"-Wl,-rpath,{c_library}"]
    subprocess.run([*command, "-lhotstart", "-o", str(built)], check=True)
    done = subprocess.run(
        [str(built), str(saved.file), str(saved.weights)],
        env={"HOTSTART_TORCH": str(tmp_path)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "does not fit here:\n  torch: expected" in done.stderr
    assert "found nothing" in done.stderr


def writes_nothing(folder: Path) -> Path:
    """A compiler that takes whatever it is given, and writes an empty file."""
    compiler = folder / "compiler"
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ntouch "$2"\n')
    compiler.chmod(0o755)
    return compiler


def test_the_command_says_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(writes_nothing(tmp_path)))
    folder = tmp_path / "new" / "folder"
    assert main(["c-library", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"hotstart.h", "libhotstart.so"}
    assert f"compile with: cc serve.c -I{folder} -L{folder} -lhotstart" in capsys.readouterr().out


def test_a_compiler_may_have_words_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"env {writes_nothing(tmp_path)} -O0")
    header, library = build_library(tmp_path / "a folder, and a comma")
    assert header.exists()
    assert library.exists()


def test_a_program_finds_the_library_where_it_has_been_moved(
    c_library: Path, tmp_path: Path
) -> None:
    source, moved = tmp_path / "uses.c", tmp_path / "moved"
    source.write_text(
        '#include "hotstart.h"\nint main(void) { return *hotstart_version() == 0; }\n'
    )
    built, library = tmp_path / "uses", tmp_path / "libhotstart.so"
    shutil.copy(c_library / "libhotstart.so", library)
    command = ["cc", str(source), f"-I{c_library}", str(library), "-o", str(built)]
    subprocess.run([*command, f"-Wl,-rpath,{moved}"], check=True)
    moved.mkdir()
    library.rename(moved / "libhotstart.so")
    subprocess.run([str(built)], check=True, env={})


@pytest.mark.thorough
@pytest.mark.parametrize("compiler", ["false", "cc"], ids=["refuses", "of C"])
def test_a_compiler_that_does_not_compile_it_is_an_error(compiler: str, tmp_path: Path) -> None:
    with pytest.raises(hotstart.ArtifactError, match=f"expected that {compiler} compiles it"):
        build_library(tmp_path, compiler, flags=("-O0",))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["c-library", str(tmp_path / "file")]) == 1
    assert "file: expected a folder that can be written to" in capsys.readouterr().err


def test_a_compiler_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(hotstart.OptionsError, match="found no such-compiler"):
        build_library(tmp_path, "such-compiler")
    assert shutil.which("such-compiler") is None
