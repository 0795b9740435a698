"""Code generation: nodes of a graph as Python source, for stitched code and for the eager compiler."""

from hotstart.codegen.emit import Emitter, NotExpressible
from hotstart.codegen.piece import emit_nodes, last_uses, piece_as_source

__all__ = ["Emitter", "NotExpressible", "emit_nodes", "last_uses", "piece_as_source"]
