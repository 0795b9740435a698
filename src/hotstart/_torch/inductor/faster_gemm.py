"""Have Inductor's C++ GEMM template make the most of a processor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from hotstart._torch.in_between import replaced

_PARTS = 4
"""Parts of the work for each thread."""

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

    A version of torch whose template has other lines is left as it is.
    """
    with _columns_held(), _shared_out():
        yield


@contextlib.contextmanager
def _columns_held() -> Iterator[None]:
    """Have each part of the weight loaded once for all rows of a block, and ahead of its use.

    The kernel for float32 (`CppMicroGemmFP32Vec`, 2.11 to 2.15) multiplies 4 rows by 24 columns
    with AVX2, which takes all 16 registers. GCC then saves three: it loads the columns again for
    each row, and loads take longer than products: a quarter of the processor's peak is lost. An
    empty assembler statement, which may change the register for all that GCC knows, takes that
    choice away. With AVX-512 there are registers enough. Prefetching hides the time that weights
    which other layers displaced take to come back; past the end of the weight it does nothing.
    """
    from torch._inductor.codegen.cpp_micro_gemm import CppMicroGemmFP32Vec

    define = CppMicroGemmFP32Vec.codegen_define

    def faster(self: Any, kernel: Any) -> str:
        return define(self, kernel).replace(_LOAD, _HELD)

    with replaced(CppMicroGemmFP32Vec, "codegen_define", faster):
        yield


@contextlib.contextmanager
def _shared_out() -> Iterator[None]:
    """Have threads take parts of the work as they get done, and more parts than threads.

    The template (`cpp_gemm_template`, 2.11 to 2.15) makes one part for each thread that there is
    where it is compiled, so all wait for the slowest, and a machine with more cores gains nothing.
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
