"""Open the checkpoint that a user names: a file, several with an index, a folder or a mapping."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hotstart.artifact import weights_file
from hotstart.checkpoint.prepared import PreparedWeights
from hotstart.checkpoint.safetensors import MappedFile
from hotstart.checkpoint.tensors import Checkpoint, GivenTensors
from hotstart.errors import ArtifactError, CorruptArtifact, OptionsError
from hotstart.faults import path_of

_PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_INDEX = ".index.json"
_PREPARED = ".weights"
_USUAL = (
    "model.safetensors.index.json", "model.safetensors",
    "pytorch_model.bin.index.json", "pytorch_model.bin",
)  # fmt: skip
"""Names that a folder's checkpoint usually has, the first that is there taken."""


def open_checkpoint(weights: Any) -> Checkpoint:
    """Open a checkpoint; none of its tensors is read.

    Args:
        weights: as in `hotstart.load`.

    Raises:
        OptionsError: it is nothing that a checkpoint can be.
        ArtifactError: there is no such file, or none that can be read.
        CorruptArtifact: a file is damaged, or is not what its name says.
    """
    if isinstance(weights, Mapping):
        return GivenTensors(weights, "given as a mapping", shared=True)
    if not isinstance(weights, str | os.PathLike):
        raise OptionsError(
            f"weights: got a {type(weights).__qualname__}, takes a file of weights, a folder with "
            "one, a mapping of names to tensors, or [prepared weights, the original]"
        )
    path = Path(path_of("weights", weights))
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        at = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ArtifactError(
            f"{path}: expected a file or a folder of weights, found nothing of that name{at}. "
            "Correct the path, or bring the file there first."
        ) from error
    except (OSError, ValueError):
        is_folder = False  # opening it says what is wrong
    return _opened(_in_folder(path) if is_folder else path)


def _opened(file: Path) -> Checkpoint:
    if file.name.endswith(_INDEX):
        return _Shards(file)
    if file.suffix == ".safetensors":
        return MappedFile(file)
    if file.suffix in _PICKLED:
        return _pickled(file)
    if file.suffix == _PREPARED or _is_prepared(file):
        return PreparedWeights(file)
    raise OptionsError(
        f"weights: got {file}, takes a .safetensors file, an index (*{_INDEX}), a file of a state "
        f"dict ({', '.join(_PICKLED)}), a folder with one of them, what program.save_weights wrote "
        f"(*{_PREPARED}), or a mapping"
    )


def _is_prepared(file: Path) -> bool:
    """Tell whether a file of any name holds prepared weights."""
    try:
        with file.open("rb") as opened:
            return weights_file.is_one(opened.read(len(weights_file.MAGIC)))
    except (OSError, ValueError):
        return False


def _in_folder(folder: Path) -> Path:
    """Choose the checkpoint of a folder.

    Raises:
        ArtifactError: there is none, or more than one.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file())
    there = {path.name: path for path in files}
    for name in _USUAL:
        if name in there:
            return there[name]
    found = [path for path in files if path.name.endswith(_INDEX)]
    found = found or [path for path in files if path.suffix == ".safetensors"]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in found) or "none"
    raise ArtifactError(
        f"{folder}: expected one checkpoint, found {listed}. Give the path of the file or of the "
        "index."
    )


def _pickled(file: Path) -> GivenTensors:
    """Map a state dict that `torch.save` wrote; nothing but tensors and containers is unpickled.

    Raises:
        ArtifactError: it cannot be read so, or holds something else.
    """
    try:
        found = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # whatever torch and pickle raise for damage
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{file}: expected a state dict that torch.save wrote, found: {reason:.300}. Write it "
            "again with torch.save(model.state_dict(), file), or as safetensors."
        ) from error
    if not isinstance(found, Mapping):
        raise ArtifactError(
            f"{file}: expected a state dict, found a {type(found).__qualname__}. Load it, and pass "
            "the mapping of names to tensors that is in it."
        )
    return GivenTensors(found, str(file), shared=False)


class _Shards:
    """A checkpoint in several files, each opened when a tensor of it is asked for.

    Args:
        index: the file that says which tensor is where.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: it is no index, or names files outside of its folder.
    """

    shared = False
    whole = False

    def __init__(self, index: Path) -> None:
        self.where = str(index)
        self._folder = index.parent
        self._files = dict(_places(index))
        self._open: dict[str, Checkpoint] = {}

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        return self._files.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._of(name).shape(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor.

        Raises:
            ArtifactError: its file cannot be read.
            CorruptArtifact: its file is damaged, or does not have it.
        """
        return self._of(name).tensor(name)

    def taken_apart(self, name: str) -> torch.Tensor | None:
        """Return nothing: an index has the names of tensors as the files have them."""
        return None

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one place in memory."""
        return self._files[name] == self._files[other] and self._of(name).same(name, other)

    def discard(self, name: str) -> None:
        """Hand back the memory of a tensor that nobody reads any more."""
        self._of(name).discard(name)

    def _of(self, name: str) -> Checkpoint:
        file = self._files[name]
        if file not in self._open:
            self._open[file] = _opened(self._folder / file)
        shard = self._open[file]
        if name not in shard.names():
            raise CorruptArtifact(
                self.where, "index", f"{name} in {file}", "no such tensor there", _NO_INDEX
            )
        return shard


_NO_INDEX = "is not an index of the files beside it; copy all of them again"


def _places(index: Path) -> Iterator[tuple[str, str]]:
    """List the names of tensors with the files that they are in."""
    try:
        table = json.loads(index.read_bytes())["weight_map"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise ArtifactError(
            f"{index}: expected an index of a checkpoint, found: {error!r:.200}. Give the path of "
            "one that has a weight_map."
        ) from error
    if not isinstance(table, dict):
        raise CorruptArtifact(index, "weight_map", "an object", repr(table)[:80], _NO_INDEX)
    for name, file in table.items():
        plain = isinstance(file, str) and file == Path(file).name and "\0" not in file
        if not plain or Path(file).suffix not in (".safetensors", *_PICKLED):
            expected = "names of files in its own folder"
            raise CorruptArtifact(index, "weight_map", expected, repr(file)[:80], _NO_INDEX)
        yield name, file
