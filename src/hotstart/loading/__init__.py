"""Loading: an artifact to something that runs. Imports nothing that compiles."""

from hotstart.loading.program import bind, instantiate
from hotstart.loading.unpack import unpack

__all__ = ["bind", "instantiate", "unpack"]
