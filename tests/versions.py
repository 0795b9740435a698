"""Tests that some supported versions of torch cannot pass, and why."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

checks_tensors = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch up to 2.12 cannot trace torch._check_tensor_all"
)
knows_derived_constants = pytest.mark.skipif(
    torch.__version__ < "2.12", reason="torch 2.11 traces what derives from str or float wrongly"
)
has_template = pytest.mark.skipif(
    torch.__version__ < "2.13",
    reason="threads of the GEMM template go by their own numbers up to 2.12, so it is not used",
)


def library_opens_alone() -> bool:
    """Whether libtorch_cpu opens in a process that has not imported torch."""
    code = "from hotstart.torchfree.library import libtorch; libtorch()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    return done.returncode == 0
