"""Examples in docstrings of public names run, and print what they say."""

import doctest
from pathlib import Path

import pytest
import torch

import hotstart


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Options", "Store", "compile", "load"])
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finder = doctest.DocTestFinder(recurse=False)
    names = {"hotstart": hotstart, "torch": torch}
    (found,) = finder.find(getattr(hotstart, name), name, module=False, globs=names)
    assert found.examples
    said: list[str] = []
    failed, _ = doctest.DocTestRunner().run(found, out=said.append)
    assert not failed, "".join(said)
