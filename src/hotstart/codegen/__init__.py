"""Code generation: nodes of a graph as Python source."""

from hotstart.codegen.emit import Emitter, NotExpressible, assignment, comment, written_tuple
from hotstart.codegen.piece import emit_nodes, last_uses, piece_as_source

__all__ = [
    "Emitter",
    "NotExpressible",
    "assignment",
    "comment",
    "emit_nodes",
    "last_uses",
    "piece_as_source",
    "written_tuple",
]
