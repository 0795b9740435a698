"""Every block of Python in the docs runs, in the order of its page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import hotstart
from tests.docs.blocks import Block, pages, python_blocks
from tests.docs.fragments import PYTHON
from tests.docs.names import PAGES, REPLACED
from tests.docs.run import NotRaised, run

SLOW = {"docs/generation.md", "docs/howto/generation.md", "docs/howto/quantised.md"}
SLOW |= {"docs/observe.md", "docs/semantics.md"}
"""Pages whose blocks import or trace what takes long."""

OWN_TEST = {"docs/tutorial.md", "docs/format.md"}
"""Pages that a test of their own runs."""


def params() -> Iterator[Any]:
    for page in pages():
        if page not in OWN_TEST and any(block_runs(block) for block in python_blocks(page)):
            yield pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])


def block_runs(block: Block) -> bool:
    return (block.page, block.first) not in PYTHON


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder, where modules are found, and pieces run as they were captured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOTSTART_CACHE", str(tmp_path / "cache/own"))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # and what a page sets is undone
    monkeypatch.setitem(hotstart.Options.__init__.__kwdefaults__, "compiler", "op_by_op")
    yield tmp_path
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        del sys.modules[name]


# torch.export copies trees in a way that torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize("page", list(params()))
def test_the_blocks_of_a_page_run(page: str, folder: Path) -> None:
    replaced = {old: new.format(folder=folder) for old, new in REPLACED.items()}
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in python_blocks(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        elif block_runs(block):
            provide = PAGES.get(page, {}).get(block.first)
            names |= provide(names) if provide else {}
            run(block, names, replaced)


def test_fragments_and_names_are_of_blocks_that_are_there() -> None:
    there = {(block.page, block.first) for page in pages() for block in python_blocks(page)}
    named = {(page, first) for page, provided in PAGES.items() for first in provided}
    assert set(PYTHON) - there == set()
    assert named - there == set()


def test_an_error_that_a_page_promises_has_to_be_raised() -> None:
    text = "hotstart.Dim('batch', max=4)\n# hotstart.OptionsError: Dim\n"
    with pytest.raises(NotRaised):
        run(Block("page.md", 1, "python", "", text), {"hotstart": hotstart}, {})
    text = "hotstart.Dim('batch')\n# hotstart.OptionsError: something else\n"
    with pytest.raises(NotRaised, match="something else"):
        run(Block("page.md", 1, "python", "", text), {"hotstart": hotstart}, {})
