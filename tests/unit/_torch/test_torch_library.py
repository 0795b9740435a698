"""How a library is linked to torch's without torch's being read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch

from hotstart._torch import torch_library
from hotstart._torch.torch_library import folder_to_link, soname

LIBRARIES = Path(torch.__file__).parent / "lib"


def made(folder: Path) -> str:
    """What a library that calls a function of another says of itself."""
    source = folder / "calls.c"
    source.write_text("int device(); int f() { return device(); }")
    linked = ["-Wl,--no-as-needed", "-ltorch_cpu"]
    words = [*linked, "-o", str(folder / "calls.so"), f"-L{folder_to_link('gcc', folder)}"]
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), *words], check=True)
    command = ["readelf", "-d", str(folder / "calls.so")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(told: str) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", told)


def test_a_library_needs_torchs_by_its_name_and_no_path(tmp_path: Path) -> None:
    told = made(tmp_path)
    assert soname(LIBRARIES / "libtorch_cpu.so") in needed(told)
    assert str(tmp_path) not in told


def test_torchs_library_is_read_where_its_name_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = needed(made(tmp_path))
    monkeypatch.setattr(torch_library, "soname", lambda library: "")
    assert needed(made(tmp_path)) == expected
    assert folder_to_link("gcc", tmp_path) == LIBRARIES


def test_the_name_of_a_library_is_its_own_and_not_that_of_the_file(tmp_path: Path) -> None:
    library = tmp_path / "libone.so"
    command = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", str(library)]
    subprocess.run([*command, "-Wl,-soname,libother.so.2"], check=True)
    assert soname(library) == "libother.so.2"


def test_what_is_no_library_has_no_name(tmp_path: Path) -> None:
    text = tmp_path / "libtext.so"
    text.write_text("INPUT(libother.so)")
    assert soname(text) == ""
    assert soname(tmp_path / "libnone.so") == ""
