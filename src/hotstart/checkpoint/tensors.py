"""Define a checkpoint: tensors by name, none of which is read before it is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import torch

from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart.errors import OptionsError
from hotstart.runtime.tensors import describe_tensor


class Checkpoint(Protocol):
    """Tensors by name.

    Attributes:
        where: what it is, for messages.
        shared: whether anybody else may write to its tensors.
        whole: whether it also has what checkpoints leave out, as prepared weights do.
    """

    where: str
    shared: bool
    whole: bool

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        ...

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor; the same memory whenever it is asked for.

        Raises:
            ArtifactError: what lies there cannot be a tensor.
        """
        ...

    def taken_apart(self, name: str) -> torch.Tensor | None:
        """Return the tensor of a subclass that inner tensors, whose names begin so, are of."""
        ...

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one place in memory."""
        ...

    def discard(self, name: str) -> None:
        """Hand back the memory of a tensor that nobody reads any more, as far as that is possible.

        What reads it all the same finds what the checkpoint holds.
        """
        ...


class GivenTensors:
    """A checkpoint in memory: a mapping of names to tensors.

    One of a subclass that says what it is made of is its inner tensors, each by its own name.

    Args:
        tensors: by name. Of other values, nothing is asked.
        where: as in `Checkpoint`.
        shared: as in `Checkpoint`.
    """

    def __init__(self, tensors: Mapping[str, Any], where: str, shared: bool) -> None:
        strange = next((name for name in tensors if not isinstance(name, str)), None)
        if strange is not None:
            raise OptionsError(f"weights: got a mapping with the key {strange!r}, takes names")
        given = {n: t for n, t in tensors.items() if isinstance(t, torch.Tensor)}
        self._apart = {n: t for n, t in given.items() if inner_names(t)}
        self._tensors = {n: t for name, tensor in given.items() for n, t in _inner(name, tensor)}
        self.where = where
        self.shared = shared
        self.whole = False

    def names(self) -> Collection[str]:
        """List the names of all tensors."""
        return self._tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor, without autograd."""
        return self._tensors[name].detach()

    def taken_apart(self, name: str) -> torch.Tensor | None:
        """Return the tensor of a subclass that was given by a name."""
        return self._apart.get(name)

    def same(self, name: str, other: str) -> bool:
        """Tell whether two names are of one place in memory."""
        one, two = self._tensors[name], self._tensors[other]
        if one is two:
            return True
        described = describe_tensor(one) == describe_tensor(two)
        plain = one.layout is two.layout is torch.strided and one.device.type != "meta"
        return described and plain and one.data_ptr() == two.data_ptr()

    def discard(self, name: str) -> None:
        """Do nothing: whoever made the mapping keeps its tensors."""


def _inner(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """A plain tensor with its name; of one of a subclass, the inner tensors with theirs."""
    names = inner_names(tensor)
    if not names:
        yield name, tensor
    for inner in names:
        yield from _inner(f"{name}.{inner}", getattr(tensor, inner))
