"""Native programs in this process: loaded from their bytes, and bound to weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from hotstart._torch.running.native_code import (
    reinterpret_tensor,
    tensor_handles,
    tensors_of_handles,
)
from hotstart.records.artifact import NativeProgram
from hotstart.runtime.code.libraries import load_program


class Body:
    """A function of a native program with what it runs on.

    Attributes:
        capsule: the program's own record of it.
        held: the same as Python knows it; it lives as long as the record.
        written: the tensors among it, also of bodies that it calls, that kernels write to.
    """

    __slots__ = ("capsule", "held", "written")

    def __init__(
        self, capsule: Any, held: tuple[Any, ...], written: tuple[torch.Tensor, ...]
    ) -> None:
        self.capsule = capsule
        self.held = held
        found = {id(tensor): tensor for tensor in written}
        for other in held:
            if isinstance(other, Body):
                found |= {id(tensor): tensor for tensor in other.written}
        self.written: tuple[torch.Tensor, ...] = tuple(found.values())


def _raise_versions(tensors: Iterable[torch.Tensor]) -> None:
    """Tell autograd of tensors that kernels have written to."""
    torch.autograd.graph.increment_version([t for t in tensors if not t.is_inference()])


class Library:
    """The native code of an artifact, loaded."""

    def __init__(self, native: NativeProgram) -> None:
        self._bind, call = load_program(native)
        self._handles = tensor_handles()
        self.scope: dict[str, Any] = {
            "native": self._bound,
            "call": call,
            "handles": self._handles,
            "tensors": tensors_of_handles(),
            "reinterpret_tensor": reinterpret_tensor(),
            "raise_versions": _raise_versions,
        }

    def _bound(self, body: int, *held: Any, written: tuple[torch.Tensor, ...] = ()) -> Body:
        """Bind a body of the program to tensors and other bodies, in the order of its places."""
        numbers = [number for number, each in enumerate(held) if isinstance(each, torch.Tensor)]
        row = [each.capsule if isinstance(each, Body) else each for each in held]
        for number, handle in zip(numbers, self._handles([held[n] for n in numbers]), strict=True):
            row[number] = handle
        return Body(self._bind(body, row), held, written)
