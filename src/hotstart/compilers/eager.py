"""The fast double: every piece runs the operators it was captured with."""

from __future__ import annotations

from hotstart.codegen import piece_as_source
from hotstart.compilers.base import Job
from hotstart.ir import CompiledUnit
from hotstart.partition.digest import Token


class EagerCompiler:
    """Writes pieces as source, op by op. No compiler is involved."""

    def token(self) -> Token:
        return "eager"

    def warm_up(self) -> None:
        pass

    def compile(self, job: Job) -> CompiledUnit:
        return piece_as_source(job.graph, job.piece, tuple(job.bounds), job.key)

    def close(self) -> None:
        pass
