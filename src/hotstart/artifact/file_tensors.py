"""The tensors that an artifact's file holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from hotstart.artifact.manifest import TENSORS, TensorLayout

T = TypeVar("T")


class FileTensors(Generic[T]):
    """The tensors of a file, each made once.

    Args:
        layouts: of the tensors, by name.
        blobs: of the file.
        make: makes a tensor of its layout and its bytes, which nobody may write to.
    """

    def __init__(
        self,
        layouts: Mapping[str, TensorLayout],
        blobs: Mapping[str, memoryview],
        make: Callable[[TensorLayout, memoryview], T],
    ) -> None:
        self._layouts = layouts
        self._blob = blobs[TENSORS] if layouts else memoryview(b"")
        self._places = _places(self._blob) if layouts else {}
        self._make = make
        self._made: dict[str, T] = {}

    def find(self, name: str) -> T:
        """Return the tensor of a name.

        Raises:
            ValueError: it has other bytes than its layout spans.
        """
        if name not in self._made:
            memory = self._blob[slice(*self._places[name])]
            self._made[name] = self._make(self._layouts[name], memory)
        return self._made[name]


def _places(blob: memoryview) -> dict[str, tuple[int, int]]:
    """Find where each tensor of a blob in the format of safetensors begins and ends."""
    start = 8 + int.from_bytes(blob[:8], "little")
    header = msgspec.json.decode(bytes(blob[8:start]))
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
    }
