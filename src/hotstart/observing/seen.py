"""The records of calls that were seen. None of them holds a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import torch

from hotstart.capture.arguments import Arguments
from hotstart.dtypes import dtype_of
from hotstart.errors import OptionsError
from hotstart.records.contract import Parameter, TensorSpec
from hotstart.records.nested import Const, Registered, Slot, is_container, walk

Form = tuple[tuple[object, ...], ...]
"""All that tells two calls apart but sizes and layouts; can be compared and hashed."""


class SeenCall(msgspec.Struct, frozen=True):
    """A call that was seen, and how often one like it was.

    Attributes:
        parameters: forward's parameters with the tree of each argument.
        tensors: the tensors in them by slot, with their sizes.
        strides: the strides of these tensors.
        by_position: how many arguments were passed by position.
        training: the `training` flag of the module; None where there is no module.
        autocast: the device types autocast was on for, with the dtype each cast to.
        count: how many such calls were seen.
    """

    parameters: tuple[Parameter, ...]
    tensors: tuple[TensorSpec, ...]
    strides: tuple[tuple[int, ...], ...]
    by_position: int
    training: bool | None
    autocast: tuple[tuple[str, str], ...]
    count: int = 1

    @property
    def form(self) -> Form:
        """The form of the call."""
        return tuple(_form(self.parameters, self.tensors))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor."""
        return tuple(tuple(spec.shape_at({})) for spec in self.tensors)

    @property
    def layouts(self) -> tuple[tuple[int, ...], ...]:
        """The order of each tensor's dimensions in memory."""
        return tuple(spec.dim_order for spec in self.tensors)

    def constants(self) -> Iterator[tuple[str, str]]:
        """Every constant as text, with its path."""
        for parameter in self.parameters:
            for path, tree in walk(parameter.tree, parameter.name):
                if isinstance(tree, Const):
                    yield path, repr(tree.value)

    def arguments(self) -> Arguments:
        """The call as the description of an example without dynamic dimensions."""
        return Arguments(
            self.parameters, self.tensors, (), {}, self.by_position, strides=self.strides
        )

    def example(self, device: torch.device | None = None) -> list[torch.Tensor]:
        """Tensors without contents for an example of the call.

        Args:
            device: the device of the build, whose tensors are made on the meta device; if None, all
                are.

        Raises:
            OptionsError: a tensor was on a device that is not here.
        """
        return [
            _empty(spec, strides, device is None or torch.device(spec.device) == device)
            for spec, strides in zip(self.tensors, self.strides, strict=True)
        ]


def _empty(spec: TensorSpec, strides: tuple[int, ...], on_meta: bool) -> torch.Tensor:
    shape, dtype = tuple(spec.shape_at({})), dtype_of(spec.dtype)
    try:
        return torch.empty_strided(
            shape, strides, dtype=dtype, device="meta" if on_meta else spec.device
        )
    except (AssertionError, RuntimeError) as error:  # torch without that device asserts
        raise OptionsError(
            f"{spec.path}: expected a device of this machine, found {spec.device}, where it was "
            "observed. Build where that is, or observe calls on the device of the build."
        ) from error


class SeenTarget(msgspec.Struct, frozen=True):
    """The calls that were seen of one module or method.

    Attributes:
        about: the module's class or the method, as text.
        calls: calls that differ, in the order in which they were first seen.
        refused: reasons why calls could not be described, each once.
    """

    about: str
    calls: tuple[SeenCall, ...] = ()
    refused: tuple[str, ...] = ()


def _form(
    parameters: Sequence[Parameter], tensors: Sequence[TensorSpec]
) -> Iterator[tuple[object, ...]]:
    for parameter in parameters:
        for path, tree in walk(parameter.tree, parameter.name):
            if isinstance(tree, Slot):
                spec = tensors[tree.index]
                yield path, "tensor", spec.dtype, spec.device, len(spec.shape)
            elif isinstance(tree, Const):
                yield path, "constant", type(tree.value), repr(tree.value)
            elif is_container(tree):
                context = repr(tree.context) if isinstance(tree, Registered) else ""
                yield path, "container", tree.cls, context
