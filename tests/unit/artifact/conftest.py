"""Files with given bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path that every example of a property test may overwrite."""
    return tmp_path_factory.mktemp("container") / "scratch.hot"


@pytest.fixture
def hot(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a file with the given bytes."""

    def make(data: bytes) -> Path:
        path = tmp_path / "model.hot"
        path.write_bytes(data)
        return path

    return make
