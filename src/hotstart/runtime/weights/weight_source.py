"""Define where a program's weights come from: a model, or a checkpoint that only it has."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import torch

from hotstart.records.standalone import LeftOut


class Fetched(msgspec.Struct, frozen=True):
    """The tensors of a table of weights at one time.

    Attributes:
        tensors: by slot.
        current: whether fetching again would find the same ones.
        counters: from the `id` of a tensor to others whose versions tell of writes to it that its
            own does not: to the batch counter, of a statistics tensor of batch normalisation, which
            calls write without autograd's knowledge; and to the tensor of a subclass, of an inner
            tensor, which operators on the subclass write below autograd.
        written: whether anything may write to the tensors.
    """

    tensors: list[torch.Tensor]
    current: Callable[[], bool]
    counters: Mapping[int, Sequence[torch.Tensor]]
    written: bool = True


class Source(Protocol):
    """Gives a program its weights."""

    def fetch(self) -> Fetched:
        """Return the tensors as they are now, after comparing them with what was compiled.

        Raises:
            ModelMismatch: tensors that are missing or do not fit, each named.
            ContractError: a module is in another mode, training or evaluation, than at the build.
        """
        ...

    def forget(self) -> None:
        """Compare everything when fetched next, also what is not watched."""
        ...

    def owners(self, paths: Sequence[str]) -> list[Any]:
        """Return the objects whose attributes calls set in place of the modules at some paths."""
        ...

    def release(self, memory: Collection[int]) -> tuple[dict[int, torch.Tensor], int]:
        """Replace weights in some memory by stand-ins.

        Args:
            memory: addresses of storages; all that a weight's storage holds must be given back.

        Returns:
            The stand-ins, by the `id` of the tensors they replace, and the bytes that were freed.
        """
        ...

    def values(self) -> Sequence[Any]:
        """List what is there now by slot, compared with nothing; None where there is nothing."""
        ...

    def left_out(self) -> Sequence[LeftOut]:
        """List the tensors that no checkpoint holds, as they are now."""
        ...
