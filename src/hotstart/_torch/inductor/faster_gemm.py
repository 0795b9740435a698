"""Make Inductor's C++ GEMM template faster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import replaced

_PARTS = 4
"""Number of parts of the work for each thread."""

_LOAD = "vb[col] = Vectorized::loadu(B + k * ldb + col * VLEN);"

_HELD = f"""{_LOAD}
#if defined(CPU_CAPABILITY_AVX2) && defined(__GNUC__)
            __m256 held = vb[col];
            asm("" : "+x"(held));
            vb[col] = held;
            _mm_prefetch(B + (k + 64) * ldb + col * VLEN, _MM_HINT_T0);
#endif"""


@contextlib.contextmanager
def faster_gemm() -> Iterator[None]:
    """Have the template lose no time to loads and to threads that wait.

    In a version of torch where the template has other lines, it is left unchanged.
    """
    with _columns_held(), _shared_out():
        yield


@contextlib.contextmanager
def _columns_held() -> Iterator[None]:
    """Load each part of the weight once for all rows of a block, and prefetch it.

    The kernel for float32 (`CppMicroGemmFP32Vec`, 2.11 to 2.15) multiplies 4 rows by 24 columns
    with AVX2, which takes all 16 registers. GCC then saves three: it loads the columns again for
    each row, and loads take longer than products: a quarter of the processor's peak is lost. An
    empty assembler statement, after which GCC must assume that the register has changed, prevents
    that. With AVX-512 there are registers enough. Prefetching hides the time that weights which
    other layers displaced take to come back; past the end of the weight it does nothing.
    """
    from torch._inductor.codegen.cpp_micro_gemm import CppMicroGemmFP32Vec

    define = CppMicroGemmFP32Vec.codegen_define

    def faster(self: Any, kernel: Any) -> str:
        return define(self, kernel).replace(_LOAD, _HELD)

    with replaced(CppMicroGemmFP32Vec, "codegen_define", faster):
        yield


@contextlib.contextmanager
def _shared_out() -> Iterator[None]:
    """Schedule parts of the work dynamically, with more parts than threads.

    The template (`cpp_gemm_template`, 2.11 to 2.15) makes one part for each thread of the machine
    that compiles, so all wait for the slowest, and a machine with more cores gains nothing.
    """
    from torch._inductor.codegen import cpp_gemm_template as module
    from torch._inductor.utils import parallel_num_threads

    text = module.GEMM_TEMPLATE.replace("schedule(static, 1)", "schedule(dynamic, 1)")
    text = text.replace("omp parallel num_threads({{num_threads}})", "omp parallel")
    with (
        replaced(module, "GEMM_TEMPLATE", text),
        replaced(module, "parallel_num_threads", lambda: _PARTS * parallel_num_threads()),
    ):
        yield
