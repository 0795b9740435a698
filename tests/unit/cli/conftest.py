"""A working folder with artifacts of a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hotstart
from hotstart.artifact import signing
from tests.unit.cli.files import MODULE, SOURCE, Folder, write, written


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    path = tmp_path_factory.mktemp("work")
    (path / f"{MODULE}.py").write_text(SOURCE)
    _, public = signing.generate(path / "team")
    signing.generate(path / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        model, args, kwargs = __import__(MODULE).make()
        program = hotstart.compile(
            model,
            args,
            kwargs,
            dynamic_shapes={"x": {0: hotstart.Dim("batch", max=8, ranges=[(2, 4)], sizes=[1])}},
            options=hotstart.Options(compiler="op_by_op"),
        )
        program.save(path / "plain.hot", check=False)
        program.save(path / "signed.hot", sign_key=path / "team", check=False)
        yield Folder(path, path / "plain.hot", path / "signed.hot", public)
    sys.modules.pop(MODULE, None)


@pytest.fixture
def folder(built: Folder, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(built.path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return built


@pytest.fixture
def damaged(folder: Folder, tmp_path: Path) -> Path:
    """A signed file with one bit turned over in its last blob."""
    data = bytearray(folder.signed.read_bytes())
    data[-1] ^= 1
    file = tmp_path / "damaged.hot"
    file.write_bytes(data)
    return file


@pytest.fixture
def elsewhere(folder: Folder, tmp_path: Path) -> Path:
    """A file that was built with another torch and other sources."""
    manifest = written(folder.plain)
    source = {"content": "0" * 32, "functions": [["Missing.forward", "0" * 32]]}
    manifest["fingerprint"] |= {"torch": "1.0", "sources": {MODULE: source}}
    return write(tmp_path / "elsewhere.hot", manifest)
