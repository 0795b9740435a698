"""Tests that some supported versions of torch cannot pass, and why."""

from __future__ import annotations

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
compares_lists = pytest.mark.skipif(
    torch.__version__ < "2.13", reason="torch up to 2.12 cannot trace which of two lists it is"
)
joins_kernels = pytest.mark.skipif(
    torch.__version__ < "2.12",
    reason="torch 2.11 defines macros behind each kernel, so each is compiled alone",
)
rounds_no_factors = pytest.mark.skipif(
    torch.__version__ >= "2.15",
    reason="emulate_precision_casts of torch 2.15 rounds numbers in the code, too, unlike eager",
)
