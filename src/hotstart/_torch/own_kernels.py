"""Compile kernels of hotstart's as Inductor compiles its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any


def compile_kernel(arguments: Sequence[str], source: Template, settings: Mapping[str, Any]) -> str:
    """Compile a kernel under some settings of Inductor; the shared object.

    `CppPythonBindingsCodeCache` (2.11 to 2.15) compiles the same source once in a process.

    Args:
        arguments: the types of its arguments in C++.
        source: defines `kernel`; `threads` stands for how many threads a region starts.
        settings: in force while it is compiled.
    """
    from torch._inductor import config
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    with config.patch(dict(settings)):
        threads = int(config.cpp.threads)
        given = f" num_threads({threads})" if threads >= 1 else ""
        text = source.substitute(threads=given)
        function: Any = CppPythonBindingsCodeCache.load_pybinding(list(arguments), text)
    path: str = function.__self__.__file__
    return path
