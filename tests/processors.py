"""What the processor that runs the tests can do."""

import platform

import pytest

from hotstart.artifact import fingerprint
from hotstart.targets import missing_instructions

RUNS_V4 = platform.machine() == "x86_64" and not missing_instructions(
    "x86-64-v4", fingerprint.host()["instructions"]
)

needs_v4 = pytest.mark.skipif(not RUNS_V4, reason="this machine is none of x86-64-v4")
"""Marks tests that build for x86-64-v4: a build runs what it makes."""
