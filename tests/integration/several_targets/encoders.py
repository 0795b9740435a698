"""An encoder in files for one or two levels of x86-64, and what tests of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace

from hotstart import Options
from hotstart.records.artifact import Artifact
from tests.integration.alone import IDS, MASK, SHAPES, Encoder, Saved
from tests.processors import needs_v4

V3, V4 = "x86-64-v3", "x86-64-v4"
LACKED = "avx1024f"
"""An extension that no processor has."""

ON_V4 = [pytest.mark.usefixtures("kept_pieces"), needs_v4]


def encoder(folder: Path, target: Any) -> Saved:
    folder.mkdir(exist_ok=True)
    options = Options(form="native", pack_weights="always", target=target)
    return Saved(folder, Encoder(), IDS, MASK, dynamic_shapes=SHAPES, options=options)


def needing(artifact: Artifact, *more: str) -> Artifact:
    """An artifact that may use further extensions, too."""
    parts = artifact.fingerprint
    return replace(artifact, fingerprint={**parts, "instructions": [*parts["instructions"], *more]})


def pooled(program: Any) -> torch.Tensor:
    found: torch.Tensor = program(IDS, MASK)["pooled"]
    return found
