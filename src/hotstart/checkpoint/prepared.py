"""Map prepared weights of a file, for the program that they were made for."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch

from hotstart._torch.running.modes import apart
from hotstart._torch.running.native_code import libtorch_cpu
from hotstart._torch.running.opaque import opaque_over
from hotstart.artifact.disk import OpenFile
from hotstart.artifact.mapped_weights import MappedWeights, no_values
from hotstart.artifact.weights_file import PAGE, Stored
from hotstart.dtypes import dtype_of
from hotstart.model import contents
from hotstart.records.artifact import Artifact
from hotstart.records.shapes import spanned
from hotstart.runtime.weights.preparations import Prepared
from hotstart.runtime.weights.released import Released

_WORDS = PAGE // 8


class PreparedWeights(MappedWeights[torch.Tensor]):
    """A file that `Program.save_weights` wrote, mapped copy-on-write: a `Checkpoint`.

    It has the tensors that a program reads as they are, those that were made of the others, and for
    the others stand-ins without values.

    Args:
        file: its path.

    Raises:
        ArtifactError: it cannot be read.
        CorruptArtifact: header or table are not what was written.
        IncompatibleArtifact: it has another format.
    """

    shared = False
    whole = True

    def __init__(self, file: str | os.PathLike[str]) -> None:
        with OpenFile(os.fspath(file)) as source:
            super().__init__(source)
        self._stretches: dict[int, torch.Tensor] = {}
        self._shapes: dict[Any, torch.Tensor] = {}  # of tensors without values

    def require_fit(self, artifact: Artifact) -> None:
        """See that the weights were prepared for a program and this machine.

        The memory is checked from now on, while tensors are made of it that nobody computes with.

        Raises:
            IncompatibleArtifact: with every part that differs.
        """
        super().require_fit(artifact)
        self.begin_check(partial(sums_digest, self._memory, self._begin), libtorch_cpu())

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        return self.table.weights.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.table.tensors[self.table.weights[name]].shape

    def tensor(self, name: str) -> torch.Tensor:
        """Map a tensor; return a stand-in for one of which only what was packed of it is here."""
        return self.numbered(self.table.weights[name])

    def taken_apart(self, name: str) -> torch.Tensor | None:
        """Return nothing: a file of this kind has no tensors of subclasses."""
        return None

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one tensor."""
        return self.table.weights[name] == self.table.weights[other]

    def discard(self, name: str) -> None:
        """Do nothing: pages that nobody reads go by themselves, since the file has them."""

    def made(self) -> Prepared:
        """Return what preparations made.

        Raises:
            CorruptArtifact: the table says what cannot be.
        """
        with torch.inference_mode(False), apart():
            return Prepared.mapped(
                (
                    each.preparation,
                    [self.numbered(number) for number in each.weights],
                    [None if n is None else self.numbered(n) for n in each.results],
                    each.bytes,
                )
                for each in self.table.made
            )

    def _new(self, number: int, stored: Stored) -> torch.Tensor:
        dtype = dtype_of(stored.dtype)
        if stored.stretch is None:
            shape = (stored.shape, stored.stride, dtype)
            if shape not in self._shapes:
                self._shapes[shape] = torch.empty_strided(*shape[:2], dtype=dtype, device="meta")
            return Released.in_place_of(
                self._shapes[shape], self._name(number), partial(no_values, where=self.where)
            )
        memory = self._stretch(stored.stretch)
        if stored.layout is not None:
            return opaque_over(memory, stored.shape, dtype, self.table.layouts[stored.layout])
        size = spanned(stored.shape, stored.stride) * dtype.itemsize
        if stored.offset + size > memory.numel():
            raise ValueError(f"{size} bytes at {stored.offset} of {memory.numel()}")
        if size != memory.numel():
            memory = memory[stored.offset : stored.offset + size]
        flat = memory.view(dtype)
        return flat.as_strided(stored.shape, stored.stride, flat.storage_offset())

    def _stretch(self, number: int) -> torch.Tensor:
        """The bytes of a stretch; tensors in one stretch share its storage, as they did."""
        if number not in self._stretches:
            stretch = self.table.stretches[number]
            if stretch.size:
                made = torch.frombuffer(
                    self._memory,
                    dtype=torch.uint8,
                    count=stretch.size,
                    offset=self._begin + stretch.offset,
                )
            else:
                made = torch.empty(0, dtype=torch.uint8, device="cpu")
            self._stretches[number] = made
        return self._stretches[number]


def sums_digest(memory: mmap.mmap | memoryview, begin: int) -> str:
    """Digest the sums of the pages of a memory, as `Table.sums` says.

    Args:
        memory: bytes that can be written to.
        begin: where the pages begin.
    """
    count = (len(memory) - begin) // 8
    if not count:
        return hashlib.sha256().hexdigest()
    words = torch.frombuffer(memory, dtype=torch.int64, count=count, offset=begin)
    sums = words.view(-1, _WORDS).sum(1)
    return hashlib.sha256(contents(sums) or b"").hexdigest()


def page_sums(parts: Sequence[memoryview]) -> str:
    """Compute `sums_digest` of parts that follow each other, of whole pages together."""
    found = hashlib.sha256()
    rest = bytearray()
    for part in parts:
        taken = min(-len(rest) % PAGE, len(part)) if rest else 0
        rest += part[:taken]
        if len(rest) == PAGE:
            found.update(_sums(memoryview(rest)))
            rest = bytearray()
        whole = (len(part) - taken) // PAGE * PAGE
        if whole:
            found.update(_sums(part[taken : taken + whole]))
        rest += part[taken + whole :]
    return found.hexdigest()


def _sums(pages: memoryview) -> bytes:
    return contents(torch.frombuffer(pages, dtype=torch.int64).view(-1, _WORDS).sum(1)) or b""
