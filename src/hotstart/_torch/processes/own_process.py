"""Prepare a process that does nothing but compile, and may be killed at any time."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path
from typing import Any

from hotstart._torch.inductor.compile_fx import inductor_settings
from hotstart._torch.inductor.cross import cross_compiler
from hotstart._torch.inductor.first_kernel import vectors_by_compiler_alone
from hotstart.errors import OptionsError
from hotstart.targets import TargetName

_INDUCTOR = (
    "torch._inductor.compile_fx",
    "torch._inductor.lowering",
    "torch._inductor.select_algorithm",
    "torch._inductor.codegen.cpp_gemm_template",
    "torch._inductor.fx_passes.joint_graph",
    "torch._inductor.fx_passes.post_grad",
)
"""In this order: they import each other."""


def import_inductor() -> None:
    """Import what Inductor's first compile would import, and probe the processor."""
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    for name in _INDUCTOR:
        importlib.import_module(name)
    with config.patch(inductor_settings({}, 1, pack_weights=False)), vectors_by_compiler_alone():
        valid_vec_isa_list()


def cpp_compiler() -> str:
    """Say which C++ compiler Inductor finds, by the first line that it prints about itself.

    `get_cpp_compiler` (2.11 to 2.15) tries those of the configuration in turn, and raises
    `InvalidCxxCompiler`, a `RuntimeError`, if there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return _first_line(get_cpp_compiler())
    except RuntimeError:
        return "none"


def cpp_compiler_for(target: TargetName) -> str:
    """Say which C++ compiler there is for a target of another architecture, as `cpp_compiler`."""
    try:
        return _first_line(cross_compiler(target))
    except OptionsError:
        return "none"


def _first_line(compiler: str) -> str:
    """The first line that a compiler prints about itself; "none" if it prints nothing."""
    try:
        told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return told.stdout.partition("\n")[0]


def write_whole_files() -> None:
    """Have Inductor's C++ compiler put whole files into the cache folder, or none, from now on.

    `CppBuilder.build` (2.11 to 2.15) lets the compiler write where other processes look: if it is
    killed, they take a part of a kernel, or of the precompiled header, for all of it.
    """
    from torch._inductor.cpp_builder import CppBuilder

    builder: Any = CppBuilder
    build = builder.build

    def build_aside(self: Any) -> None:
        target = self.get_target_file_path()
        aside = f"{target}.{os.getpid()}"
        output = self._output
        self._output = output.replace(target, aside)
        try:
            build(self)
        finally:
            self._output = output
        if Path(aside).exists():
            Path(aside).replace(target)

    builder.build = build_aside
