"""Do the work that Inductor's first C++ kernel waits for in advance."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hotstart._torch.in_between import in_between

_SOURCE = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C" void kernel(float* out) { out[0] = 0.0f; }
"""


def warm_up_inductor(settings: Mapping[str, Any]) -> None:
    """Probe the CPU and precompile the header.

    Both run the C++ compiler in subprocesses, so this can go on while Dynamo traces.
    `CppCodeCache.load_async` (2.11 to 2.15) precompiles the header, then gives the compile of the
    kernel itself to `submit_fn`; nobody needs that kernel.
    """
    from torch._inductor import config

    with config.patch(dict(settings)), vectors_by_compiler_alone():
        _prober().load_pybinding_async(["float*"], _SOURCE, submit_fn=lambda work: None)


def _prober() -> Any:
    """Make an empty cache of kernels, so that Inductor's own gets no uncompiled entry."""
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    return type("Prober", (CppPythonBindingsCodeCache,), {"cache": {}})


@contextlib.contextmanager
def vectors_by_compiler_alone() -> Iterator[None]:
    """Ask only the compiler for extensions of AVX-512, once for each compiler, in this thread.

    `VecISA.check_build` (2.11 to 2.15) compiles a function, links it to torch's libraries and loads
    it in a process of its own; this in every process, for each of three extensions, whatever
    `cpp.vec_isa_ok` says. Other code checks whether the processor has them.
    """
    from torch._inductor.cpu_vec_isa import VecISA

    with in_between(VecISA, "check_build", _compiles):
        yield


def _compiles(check: Callable[..., Any], vectors: Any, code: str) -> bool:
    """Tell whether code compiles; kept beside the precompiled header if it does.

    `_HEADER_DIR` (2.11 to 2.15) is the folder of that header, which outlives others of Inductor's.
    """
    from torch._inductor import codecache, cpp_builder

    options = cpp_builder.CppTorchOptions(vec_isa=vectors, warning_all=False, compile_only=True)
    command = cpp_builder.CppBuilder("o", "i", options).get_command_line()
    version = cpp_builder.get_compiler_version_info(cpp_builder.get_cpp_compiler())
    _, source = codecache.write(
        code,
        "cpp",
        extra=f"{command} {version} {torch.__version__}",
        specified_dir=codecache._HEADER_DIR,
    )
    known = Path(source).with_suffix(".compiles")
    if known.exists():
        return True
    with tempfile.TemporaryDirectory() as folder:
        try:
            cpp_builder.CppBuilder("vectors", source, options, folder).build()
        except (OSError, RuntimeError):
            return False
    known.touch()
    return True
