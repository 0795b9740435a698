"""Write kernels of hotstart's, to be compiled with those that Inductor writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from hotstart._torch.inductor.joined_kernels import AskedKernel


def own_kernel(
    arguments: Sequence[str], source: Template, settings: Mapping[str, Any], **parts: str
) -> AskedKernel:
    """Write a kernel for some settings of Inductor.

    Args:
        arguments: the types of its arguments in C++.
        source: defines `kernel`; `threads` stands for how many threads a region starts.
        settings: in force when it is compiled.
        parts: other names that stand for something in the source.
    """
    from torch._inductor import config

    with config.patch(dict(settings)):
        threads = int(config.cpp.threads)
    given = f" num_threads({threads})" if threads >= 1 else ""
    return AskedKernel(tuple(arguments), source.substitute(parts, threads=given))
