"""How a library is linked to torch's without torch's being read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import torch

from hotstart._torch.native.torch_library import LIBTORCH, in_place_of_libtorch


def told_of(library: Path) -> str:
    """What a library says of itself and of others."""
    command = ["readelf", "-d", str(library)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_library_needs_torchs_by_the_name_that_it_has_and_no_path(tmp_path: Path) -> None:
    source, made = tmp_path / "calls.c", tmp_path / "calls.so"
    source.write_text("int device(); int f() { return device(); }")
    library = in_place_of_libtorch("gcc", tmp_path)
    words = ["-Wl,--no-as-needed", str(library), "-o", str(made)]
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), *words], check=True)
    (own,) = re.findall(
        r"\(SONAME\).*\[(.*)\]", told_of(Path(torch.__file__).parent / "lib" / LIBTORCH)
    )
    assert own in re.findall(r"\(NEEDED\).*\[(.*)\]", told_of(made))
    assert str(tmp_path) not in told_of(made)
