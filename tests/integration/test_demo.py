"""The demo embeds real sentences with real weights, and checks every one against eager."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_sentence_is_embedded_as_in_eager() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hotstart", "demo"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "needed 0.99999: ok" in done.stdout
