"""Make Inductor's kernels use several threads only for loops with enough work.

Inductor decides by the size that a range is tuned for, and from 512 elements per thread on. To
start threads takes 1 us where they wait actively, and 10 us or more where they sleep or other
processes use their cores; a loop of a thousand elements takes a tenth of the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from hotstart._torch.in_between import replaced

LEAST = 1 << 12
"""Number of elements of a loop from which threads share it."""

_PRAGMA = "#pragma omp parallel"


@contextlib.contextmanager
def small_loops_in_one_thread() -> Iterator[None]:
    """Write kernels that run small loops in the thread that calls them.

    Where sizes are known only in a call, the call decides. `WorkSharing` opens the regions that
    threads share, and `codegen_loops_impl` writes loops into them (2.11 to 2.15).
    """
    from torch._inductor.codegen.cpp import CppKernel, ParallelDepth, WorkSharing

    decide: Any = CppKernel.decide_parallel_depth
    write: Any = CppKernel.codegen_loops_impl
    open_region: Any = WorkSharing.parallel
    region: list[str] = []  # the work in the region that is open, in C++
    written: list[Sequence[str]] = []  # the same of the loops that are being written

    def decide_parallel_depth(self: Any, most: Any, threads: int) -> Any:
        work = _work(self)
        if work.is_Integer and int(work) < LEAST:
            return ParallelDepth(parallel_depth=0, start_depth=most.start_depth)
        return decide(self, most, threads)

    def codegen_loops_impl(self: Any, loops: Any, code: Any, sharing: Any) -> None:
        written.append([_in_cpp(self, kernel) for kernel in _kernels(self, loops)])
        write(self, loops, code, sharing)
        written.pop()

    def parallel(self: Any, threads: int) -> None:
        goes_on = self.in_parallel and threads == self.num_threads
        open_region(self, threads)
        if not goes_on:
            region.clear()
        region.extend(written[-1])
        _put_condition(self.code, " + ".join(dict.fromkeys(region)))

    with (
        replaced(CppKernel, "decide_parallel_depth", decide_parallel_depth),
        replaced(CppKernel, "codegen_loops_impl", codegen_loops_impl),
        replaced(WorkSharing, "parallel", parallel),
    ):
        yield


def _work(kernel: Any) -> Any:
    """Count the elements that the loops of a kernel go through, as an expression over sizes."""
    from torch._inductor.utils import sympy_product

    return sympy_product(kernel.call_ranges)


def _kernels(kernel: Any, loops: Any) -> Sequence[Any]:
    """The kernels that loops run: several where they share their outer loops."""
    from torch._inductor.codegen.cpp import OuterLoopFusedKernel

    if isinstance(loops.kernel, OuterLoopFusedKernel):
        return [each.get_kernel() for each in loops.kernel.inner]
    return [kernel]


def _in_cpp(written: Any, kernel: Any) -> str:
    """Write the work of a kernel in C++, in terms of the size arguments of another kernel."""
    from torch._inductor.codegen.cpp_utils import cexpr

    return f"({cexpr(written.rename_indexing(_work(kernel)))})"


def _put_condition(code: Any, work: str) -> None:
    """Add a condition on its work to the last parallel region of some code."""
    for number in reversed(range(len(code._lines))):
        line = code._lines[number]
        if isinstance(line, str) and line.lstrip().startswith(_PRAGMA):
            start, _, _ = line.partition(" if(")
            code._lines[number] = f"{start} if({work} >= {LEAST})"
            return
