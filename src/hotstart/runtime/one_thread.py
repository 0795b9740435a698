"""Have operators run in the thread that calls them, not in several. Imports no torch."""

from __future__ import annotations

import contextlib
import ctypes


def run_in_one_thread(libtorch: ctypes.CDLL) -> None:
    """Have operators that this thread calls leave the other cores to other threads, from now on.

    OpenMP knows a number of threads for each thread; torch sets it where a thread asks first.

    Args:
        libtorch: libtorch_cpu. One that has no OpenMP stays as it is.
    """
    with contextlib.suppress(AttributeError):
        libtorch["_ZN2at15get_num_threadsEv"]()  # at::get_num_threads()
        libtorch.omp_set_num_threads(1)
