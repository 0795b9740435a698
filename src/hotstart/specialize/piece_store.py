"""Define what a build asks of those before it: units, conditions and libraries that are kept."""

from __future__ import annotations

from typing import Protocol

from hotstart.compilers import Job, Narrowed
from hotstart.records.artifact import CompiledUnit, Kernel


class PieceStore(Protocol):
    """Store for the results of compiles, of earlier builds and of this one."""

    def get(self, job: Job) -> CompiledUnit | Narrowed | None:
        """The unit of a job, or the condition that its compile stopped at; None if none fits."""

    def put(self, job: Job, made: CompiledUnit | Narrowed) -> None:
        """Keep what a compile of a job gave."""

    def library(self, digest: str) -> Kernel | None:
        """The native library that was compiled from a source; None if none is kept."""

    def put_library(self, digest: str, library: Kernel) -> None:
        """Keep a native library, by the digest of its source."""

    @property
    def only_kept(self) -> bool:
        """Tell whether nothing may be compiled that is not kept."""

    def permit(self, job: Job) -> None:
        """Let a job be compiled that is not kept.

        Raises:
            StoreError: it has to be kept.
        """
