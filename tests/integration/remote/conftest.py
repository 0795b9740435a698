"""A remote that has a model's programs and pieces, servers of it, and machines that ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotstart import Store
from tests.integration.remote.servers import Faulty, asked, files, model


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a remote, that has the programs and pieces of a model."""
    tree = tmp_path_factory.mktemp("tree")
    store = Store(tmp_path_factory.mktemp("builder"), check=False, remote=f"file://{tree}")
    assert asked(store, model()) == "compiled"
    assert {file.split("/")[1] for file in files(tree)} == {"entries", "pieces", "programs"}
    return tree


@pytest.fixture
def faulty(tree: Path, tmp_path: Path) -> Iterator[Faulty]:
    with Faulty(tree, tmp_path / "requests") as server:
        yield server


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Store]:
    """Makes a store with a folder of its own, and time enough for a remote that answers."""

    def make(name: str, url: str, **settings: Any) -> Store:
        defaults = {"check": False, "remote_timeout_s": 10}
        return Store(tmp_path / name, remote=url, **{**defaults, **settings})

    return make
