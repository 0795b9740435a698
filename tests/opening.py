"""Whether torch's library can be used without Python's torch here."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _opens_alone() -> bool:
    """Whether libtorch_cpu opens in a process that has not imported torch."""
    code = "from hotstart.torchfree.libtorch import libtorch; libtorch()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return done.returncode == 0


opens_library_alone = pytest.mark.skipif(
    not _opens_alone(), reason="what torch's library needs is found by import torch only"
)
