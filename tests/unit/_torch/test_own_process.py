"""What a process that may be killed at any time leaves in Inductor's cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch._inductor.cpp_builder import CppBuilder

from hotstart._torch.processes.own_process import write_whole_files


class Builder:
    """As much of a `CppBuilder` as writes a file."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._output = f" -o {target}"

    def get_target_file_path(self) -> str:
        return self._target


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the file was there, each time that half of it was written."""
    found: list[bool] = []

    def build(self: Any) -> None:
        written = Path(self._output.removeprefix(" -o "))
        written.write_bytes(b"half")
        found.append(Path(self.get_target_file_path()).exists())
        if self.get_target_file_path().endswith("broken.so"):
            raise RuntimeError
        written.write_bytes(b"half and half")

    monkeypatch.setattr(CppBuilder, "build", build)
    write_whole_files()
    return found


def test_a_file_is_there_once_it_is_whole(seen: list[bool], tmp_path: Path) -> None:
    builder = Builder(tmp_path / "kernel.so")
    CppBuilder.build(builder)  # type: ignore[arg-type]
    assert seen == [False]
    assert [file.name for file in tmp_path.iterdir()] == ["kernel.so"]
    assert (tmp_path / "kernel.so").read_bytes() == b"half and half"
    assert builder._output == f" -o {tmp_path}/kernel.so"


def test_a_compiler_that_fails_leaves_no_file(seen: list[bool], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        CppBuilder.build(Builder(tmp_path / "broken.so"))  # type: ignore[arg-type]
    assert not (tmp_path / "broken.so").exists()
