"""Turn jobs into units, which are data."""

from hotstart.compilers.inductor.compiler import InductorCompiler
from hotstart.compilers.inductor.proven import ProvenCompiler
from hotstart.compilers.job import Compiler, Job, Narrowed
from hotstart.compilers.op_by_op import OpByOpCompiler
from hotstart.compilers.piece_key import Bounds, piece_kind

__all__ = [
    "Bounds",
    "Compiler",
    "InductorCompiler",
    "Job",
    "Narrowed",
    "OpByOpCompiler",
    "ProvenCompiler",
    "piece_kind",
]
