"""A compiler that is called only for what a store does not know."""

from __future__ import annotations

from hotstart.cache.pieces import Pieces
from hotstart.compilers import Compiler, Job, Narrowed
from hotstart.errors import StoreError
from hotstart.partition.digest import Token
from hotstart.records.artifact import CompiledUnit


class CachedCompiler:
    """Remembers which compiles stopped at a condition on sizes, and at which.

    Units themselves are looked up before any compiler is called (`Units.make`).

    Args:
        compiler: makes the units.
        pieces: where conditions are kept; with a store whose policy is `"require"`, nothing is
            compiled.
    """

    def __init__(self, compiler: Compiler, pieces: Pieces) -> None:
        self._compiler = compiler
        self._pieces = pieces

    def token(self) -> Token:
        """The compiler's own."""
        return self._compiler.token()

    def warm_up(self) -> None:
        """Start nothing: there may be nothing to compile."""

    def compile(self, job: Job) -> CompiledUnit | Narrowed:
        """Compile a piece, unless it is known where the compile would stop.

        Raises:
            StoreError: it has to be compiled, and must not be.
        """
        known = self._pieces.narrowed(job) if job.piece.portable else None
        if known is not None:
            return known
        store = self._pieces.store
        if store.policy == "require":
            raise StoreError(
                f"expected the compiled piece {job.piece.name} in {store}, found none that fits. "
                "Compile it there first, with policy='build', for the same sizes."
            )
        made = self._compiler.compile(job)
        if isinstance(made, Narrowed) and job.piece.portable:
            self._pieces.put_narrowed(job, made)
        return made

    def close(self) -> None:
        """Stop what the compiler started."""
        self._compiler.close()
