"""Compiled pieces, found again by other models, other depths and other variants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from hotstart.artifact import container, fingerprint, preflight
from hotstart.artifact.read import unpack
from hotstart.cache.entries import PIECES
from hotstart.cache.folder import Folder, is_damage
from hotstart.errors import ArtifactError, CorruptArtifact, IncompatibleArtifact
from hotstart.records.artifact import Artifact, CompiledUnit, Requirements
from hotstart.saving import packed

if TYPE_CHECKING:
    from hotstart.cache.tiers import Exchange


class Pieces:
    """Compiled pieces of a store.

    A piece is kept as an artifact of its own, without calls and requirements, that says which piece
    it is: a file in the place of another is damage.

    Args:
        folder: where they are kept.
        here: what of this process decides how a piece is compiled, besides what its key says.
        exchange: where those are fetched from that the folder does not have. All of them together
            take no longer than one visit may.

    Attributes:
        new: the names of those that were put.
    """

    def __init__(
        self, folder: Folder, here: Mapping[str, str], exchange: Exchange | None = None
    ) -> None:
        self.new: list[str] = []
        self._folder = folder
        self._fit = fingerprint.host()
        about = [sorted(here.items()), self._fit["instructions"], self._fit["libc"]]
        self._here = msgspec.json.encode(about)
        self._exchange = exchange
        self._visit = exchange.remote.visit() if exchange is not None else None

    def get(self, key: str) -> CompiledUnit | None:
        """The unit of a job; None if there is none that fits."""
        name = self._name(key)
        unit = self._kept(name, key)
        return unit if unit is not None else self._brought(name, key)

    def _kept(self, name: str, key: str) -> CompiledUnit | None:
        path = self._folder.path(PIECES, name)
        try:
            contents = container.read(path)
            preflight.require_fit(path, contents.manifest, compare_source=False)
            piece = unpack(contents)
            if piece.report.get("name") != name:
                raise CorruptArtifact(path, "manifest", f"the piece {name}", "another")
        except ArtifactError as error:
            if is_damage(error):
                self._folder.quarantine(PIECES, name, str(error))
            return None  # damaged, not there, not to be read, or another machine's
        self._folder.used(PIECES, name)
        return _unit_of(piece, key)

    def _brought(self, name: str, key: str) -> CompiledUnit | None:
        """The unit of a piece that the remote has, which is then kept here as well."""
        if self._exchange is None or self._visit is None:
            return None
        try:
            found = self._exchange.piece(name, self._visit)
            if found is None:
                return None
            contents, data = found
            preflight.require_fit(contents.file, contents.manifest, compare_source=False)
            unit = _unit_of(unpack(contents), key)
            if unit is None:
                raise CorruptArtifact(contents.file, "units", f"one for {key}", "others")
        except IncompatibleArtifact:
            return None
        except ArtifactError as error:
            self._exchange.remote.wrong(PIECES, name, error)
            return None
        self._folder.write(PIECES, name, [data])
        return unit

    def put(self, unit: CompiledUnit) -> None:
        """Keep the unit of a job."""
        name = self._name(unit.key)
        alone = Artifact(
            requirements=Requirements((), (), (), (), ()),
            calls=(),
            units=(unit,),
            captured=(),
            pieces=(),
            fingerprint=self._fit,
            report={"name": name},
        )
        try:
            parts = packed(alone)
        except ArtifactError:
            return  # it refers to what only this process has
        if self._folder.write(PIECES, name, parts):
            self.new.append(name)

    def _name(self, key: str) -> str:
        return hashlib.sha256(key.encode() + self._here).hexdigest()


def _unit_of(piece: Artifact, key: str) -> CompiledUnit | None:
    return next((unit for unit in piece.units if unit.key == key), None)
