"""The `op_by_op` compiler: every piece runs the operators it was captured with."""

from __future__ import annotations

from hotstart.compilers.job import Job
from hotstart.partition.tokens import Token
from hotstart.records.artifact import CompiledUnit
from hotstart.stitching.piece import piece_as_source


class OpByOpCompiler:
    """Writes pieces as source, op by op. No compiler is involved."""

    def token(self) -> Token:
        """Identify the compiler, which has no settings."""
        return "op_by_op"

    def warm_up(self) -> None:
        """Do nothing."""

    def compile(self, job: Job) -> CompiledUnit:
        """Write the piece as it was captured."""
        return piece_as_source(job.graph, job.piece, tuple(job.bounds), job.key)

    def close(self) -> None:
        """Do nothing."""
