"""Units of a store, found again by other models, other depths and other variants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from hotstart._torch.graphs.symbols import Condition, expression_text, parse_expression
from hotstart.artifact import compatibility, container, fingerprint
from hotstart.artifact.read import to_artifact
from hotstart.cache.entries import PIECES, CacheEntry
from hotstart.cache.folder import is_damage
from hotstart.cache.program_key import here
from hotstart.compilers import Job, Narrowed
from hotstart.errors import ArtifactError, CorruptArtifact, IncompatibleArtifact, StoreError
from hotstart.records.artifact import (
    Artifact,
    Blob,
    CompiledUnit,
    Kernel,
    NativeProgram,
    Requirements,
)
from hotstart.saving import checked_parts
from hotstart.targets import TargetName

if TYPE_CHECKING:
    from hotstart.cache.store import Store


class StoredPieces:
    """Units of a store, and the conditions that other compiles stopped at, by job.

    Each is kept as an artifact of its own, without calls and requirements, that says which piece it
    is: a file in the place of another is damage. All that are fetched from a remote take no longer
    together than one visit may.

    Args:
        store: where they are kept.
        target: the processor that they are compiled for. Those for a level of x86-64 are found by
            every machine that may use them, whatever machine has compiled them.

    Attributes:
        store: as given.
        new: the names of those that were put.
    """

    def __init__(self, store: Store, target: TargetName = "native") -> None:
        self.store = store
        self.new: list[str] = []
        self._wrote = False  # also pieces that were fetched
        self._folder = store.folder
        self._signatures = store.signatures
        self._fit = fingerprint.allowed(target)
        about = [target, sorted(here().items()), self._fit["instructions"], self._fit["libc"]]
        self._here = msgspec.json.encode(about)
        self._exchange = store.exchange
        self._visit = store.exchange.remote.visit() if store.exchange is not None else None

    def get(self, job: Job) -> CompiledUnit | Narrowed | None:
        """The unit of a job, or the condition that its compile stopped at; None if none fits."""
        piece = self._piece(self._name(job.key))
        if piece is None:
            return None
        if "narrowed" in piece.report:
            axes = {number: axis for axis, number in job.axis_numbers.items()}
            expr = parse_expression(piece.report["narrowed"]).xreplace(axes)
            return Narrowed(Condition(expr, f"compiling {job.piece.name}"))
        return next((unit for unit in piece.units if unit.key == job.key), None)

    def put(self, job: Job, made: CompiledUnit | Narrowed) -> None:
        """Keep what a compile of a job gave."""
        name = self._name(job.key)
        if isinstance(made, CompiledUnit):
            self._keep(name, (made,), {})
            return
        text = expression_text(made.condition.expr.xreplace(job.axis_numbers))
        if text is not None:
            self._keep(name, (), {"narrowed": text})

    def library(self, digest: str) -> Kernel | None:
        """The native library that was compiled from a source; None if none is kept."""
        piece = self._piece(self._name(f"native {digest}"))
        return None if piece is None or piece.native is None else piece.native.library

    def put_library(self, digest: str, library: Kernel) -> None:
        """Keep a native library, by the digest of its source."""
        native = NativeProgram(library, Blob("none"), (), (), ())
        self._keep(self._name(f"native {digest}"), (), {}, native)

    @property
    def only_kept(self) -> bool:
        """Tell whether nothing may be compiled that is not kept."""
        return self.store.policy == "require"

    def share(self, entry: CacheEntry | None = None) -> None:
        """Publish what a build made, and see that the folder is within its limits.

        Args:
            entry: its program, which was kept, and the folder tidied then; None if there is none.
        """
        self.store.share(entry, self.new)
        if entry is None and self._wrote:
            self._folder.tidy()

    def permit(self, job: Job) -> None:
        """Let a job be compiled that is not kept.

        Raises:
            StoreError: the store's policy is `"require"`.
        """
        if self.store.policy == "require":
            raise StoreError(
                f"expected the compiled piece {job.piece.name} in {self.store}, found none that "
                "fits. Compile it there first, with policy='build', for the same sizes."
            )

    def _piece(self, name: str) -> Artifact | None:
        piece = self._kept(name)
        return piece if piece is not None else self._brought(name)

    def _kept(self, name: str) -> Artifact | None:
        """Read from the folder."""
        try:
            piece = _checked(
                container.read(self._folder.path(PIECES, name), self._signatures.trust), name
            )
        except ArtifactError as error:
            if is_damage(error):
                self._folder.quarantine(PIECES, name, str(error))
            return None  # damaged, not there, not to be read, or another machine's
        self._folder.used(PIECES, name)
        return piece

    def _brought(self, name: str) -> Artifact | None:
        """Fetch from the remote, and keep in the folder."""
        if self._exchange is None or self._visit is None:
            return None
        try:
            found = self._exchange.piece(name, self._visit)
            if found is None:
                return None
            contents, data = found
            piece = _checked(contents, name)
        except IncompatibleArtifact:
            return None
        except ArtifactError as error:
            self._exchange.remote.wrong(PIECES, name, error)
            return None
        self._wrote |= self._folder.write(PIECES, name, [data])
        return piece

    def _keep(
        self,
        name: str,
        units: tuple[CompiledUnit, ...],
        report: Mapping[str, Any],
        native: NativeProgram | None = None,
    ) -> None:
        if not self._signatures.believes_own:
            return
        alone = Artifact(
            requirements=Requirements((), (), (), (), ()),
            calls=(),
            units=units,
            captured=(),
            pieces=(),
            fingerprint=self._fit,
            report={"name": name, **report},
            native=native,
        )
        try:
            parts = checked_parts(alone, sign=self._signatures.sign)
        except ArtifactError:
            return  # it refers to what only this process has
        if self._folder.write(PIECES, name, parts):
            self._wrote = True
            self.new.append(name)

    def _name(self, key: str) -> str:
        return hashlib.sha256(key.encode() + self._here).hexdigest()


def _checked(contents: container.Container, name: str) -> Artifact:
    """A piece that fits this machine.

    Raises:
        ArtifactError: it does not, or it is another piece.
    """
    compatibility.require_fit(contents, compare_source=False)
    piece = to_artifact(contents)
    if piece.report.get("name") != name:
        raise CorruptArtifact(contents.file, "manifest", f"the piece {name}", "another")
    return piece
