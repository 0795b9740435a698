"""Loading: an artifact to something that runs. Imports nothing that compiles."""

from hotstart.loading.kernels import KernelLoader
from hotstart.loading.program import bind

__all__ = ["KernelLoader", "bind"]
