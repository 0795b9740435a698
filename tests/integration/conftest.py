"""What tests of programs without Python or without its torch share.

The process that hands out tests to others reads this, too, and has no use for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.alone import Saved
    from tests.integration.c_api import Library


@pytest.fixture(scope="session")
def library(c_library: Path) -> Library:
    """`libhotstart.so`, opened."""
    from tests.integration.c_api import Library

    return Library(c_library / "libhotstart.so")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    """An encoder in a file, with prepared weights."""
    from tests.integration.alone import IDS, MASK, SHAPES, Encoder, Saved

    folder = tmp_path_factory.mktemp("encoder")
    return Saved(folder, Encoder(), IDS, MASK, dynamic_shapes=SHAPES)
