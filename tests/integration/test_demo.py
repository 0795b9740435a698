"""The demo embeds real sentences with real weights, and checks every one against eager."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_every_sentence_is_embedded_as_in_eager_and_from_the_file() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo.run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "needed 0.99999 for every sentence: ok" in done.stdout
    *_, saved, loaded, warm = done.stdout.splitlines()
    assert saved.startswith("saved to one file of ")
    assert loaded.startswith("loaded in a new process with empty caches and no compiler: first ")
    assert warm.startswith("torch.compile in a new process with full caches: first ")
