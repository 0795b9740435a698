"""Compiled pieces, found again by other models, other depths and other variants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from hotstart import container, fingerprint, preflight
from hotstart.errors import ArtifactError, CorruptArtifact
from hotstart.ir import Artifact, CompiledUnit, Requirements
from hotstart.loading import unpack
from hotstart.packaging import packed
from hotstart.store.entries import PIECES
from hotstart.store.folder import Folder, is_damage


class Pieces:
    """Compiled pieces of a store.

    A piece is kept as an artifact of its own, without calls and requirements, that says which piece
    it is: a file in the place of another is damage.

    Args:
        folder: where they are kept.
        here: what of this process decides how a piece is compiled, besides what its key says.
    """

    def __init__(self, folder: Folder, here: Mapping[str, str]) -> None:
        self._folder = folder
        self._fit = fingerprint.host()
        about = [sorted(here.items()), self._fit["instructions"]]
        self._here = msgspec.json.encode(about)

    def get(self, key: str) -> CompiledUnit | None:
        """The unit of a job; None if there is none that fits."""
        name = self._name(key)
        path = self._folder.path(PIECES, name)
        try:
            contents = container.read(path)
            preflight.require_fit(path, contents.manifest, verify_source=False)
            piece = unpack(contents)
            if piece.report.get("name") != name:
                raise CorruptArtifact(path, "manifest", f"the piece {name}", "another")
        except ArtifactError as error:
            if is_damage(error):
                self._folder.quarantine(PIECES, name, str(error))
            return None  # damaged, not there, not to be read, or another machine's
        self._folder.used(PIECES, name)
        return piece.units.get(key)

    def put(self, unit: CompiledUnit) -> None:
        """Keep the unit of a job."""
        name = self._name(unit.key)
        alone = Artifact(
            requirements=Requirements((), (), (), (), ()),
            calls=(),
            units={unit.key: unit},
            captured={},
            pieces=(),
            fingerprint=self._fit,
            report={"name": name},
        )
        try:
            parts = packed(alone, sign_key=None, check=False)
        except ArtifactError:
            return  # it refers to what only this process has
        self._folder.write(PIECES, name, parts)

    def _name(self, key: str) -> str:
        return hashlib.sha256(key.encode() + self._here).hexdigest()
