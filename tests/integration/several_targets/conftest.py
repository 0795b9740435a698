"""Files with the programs of an encoder: for two targets, and for each of them alone."""

from __future__ import annotations

from typing import Any

import pytest

from hotstart.artifact.disk import write
from hotstart.saving import checked_parts
from tests.integration.alone import Saved
from tests.integration.several_targets.encoders import LACKED, V3, V4, encoder, needing


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("two"), (V3, V4))


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("v3"), V3)


@pytest.fixture(scope="module")
def v4(tmp_path_factory: pytest.TempPathFactory, kept_pieces: Any) -> Saved:
    return encoder(tmp_path_factory.mktemp("v4"), V4)


@pytest.fixture(scope="module")
def lesser(two: Saved, v3: Saved, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A file of which this machine runs the code for v3 only, and weights for that."""
    best, other = two.program.artifacts()
    made = object.__new__(Saved)
    folder = tmp_path_factory.mktemp("lesser")
    made.file, made.weights, made.program = folder / "model.hot", v3.weights, v3.program
    write(made.file, checked_parts(needing(best, LACKED), other))
    return made
