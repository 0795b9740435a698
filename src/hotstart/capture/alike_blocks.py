"""Blocks of a model that are built alike, so that a trace of one serves the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import torch

from hotstart._torch.blocks.block_names import Counterparts
from hotstart._torch.subclasses.inner_tensors import inner_names
from hotstart.guards.objects import Unknowable
from hotstart.guards.wrapping import wrapping_of
from hotstart.model import ModelIndex

_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


def candidate_blocks(index: ModelIndex) -> dict[int, torch.nn.Module]:
    """List modules, with modules of their own, beside others of their class, by identity."""
    found: dict[int, torch.nn.Module] = {}
    for module in index.modules.values():
        families: defaultdict[type, list[torch.nn.Module]] = defaultdict(list)
        for child in module.children():
            if any(child.children()):
                families[type(child)].append(child)
        for family in families.values():
            if len(family) > 1:
                found |= {id(block): block for block in family}
    return found


def counterparts(first: torch.nn.Module, second: torch.nn.Module) -> Counterparts | None:
    """Map one block's modules and tensors to another's; None if they are not built alike.

    They are if their modules are of the same classes in the same places, and hold tensors of the
    same kind, tied in the same way. What torch's own modules hold besides must be equal. What
    modules of the user hold may differ: guards compare the part that a trace reads.
    """
    one, other = _Outline(first), _Outline(second)
    if None in (one.structure, other.structure) or one.structure != other.structure:
        return None
    return Counterparts(
        {id(a): b for a, b in zip(one.tensors, other.tensors, strict=True)},
        {id(a): b for a, b in zip(one.modules, other.modules, strict=True)},
    )


class _Outline:
    """Structure of a module, for comparison.

    Attributes:
        structure: equal for modules that are built alike; None if it has what cannot be compared.
        tensors, modules: what it holds, each once, in the order of the structure.
    """

    def __init__(self, block: torch.nn.Module) -> None:
        self.tensors: list[torch.Tensor] = []
        self.modules: list[torch.nn.Module] = []
        self._numbers: dict[int, int] = {}
        try:
            self.structure: Hashable | None = tuple(self._module(block))
        except _NotComparableError:
            self.structure = None

    def _module(self, module: torch.nn.Module) -> Iterator[Hashable]:
        known = self._numbers.get(id(module))
        if known is not None:
            yield "module", known
            return
        self._numbers[id(module)] = len(self._numbers)
        self.modules.append(module)
        strict = type(module).__module__.startswith("torch.nn.")
        yield type(module), module.training
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                for key, tensor in value.items():
                    yield name, key, self._tensor(tensor)
            elif name == "_modules":
                for key, child in value.items():
                    yield name, key
                    yield from () if child is None else self._module(child)
            elif name != "training":
                yield name, self._attribute(name, value, strict)

    def _tensor(self, tensor: torch.Tensor | None) -> Hashable:
        if tensor is None:
            return None
        known = self._numbers.get(id(tensor))
        if known is not None:
            return known
        self._numbers[id(tensor)] = len(self._numbers)
        self.tensors.append(tensor)
        if tensor.layout != torch.strided or tensor.is_nested:
            raise _NotComparableError
        names = inner_names(tensor)
        return (
            type(tensor),
            self._wrapping(tensor) if names else (),
            tuple(self._tensor(getattr(tensor, name)) for name in names),
            tuple(tensor.shape),
            tuple(tensor.stride()),
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
            tensor.storage_offset(),
            tensor.is_conj(),
            tensor.is_neg(),
            tensor.is_inference(),
            tuple(name for name in vars(tensor) if not name.startswith("_dynamo_")),
        )

    @staticmethod
    def _wrapping(tensor: torch.Tensor) -> Hashable:
        try:
            return wrapping_of(tensor)
        except Unknowable:
            raise _NotComparableError from None

    def _attribute(self, name: str, value: Any, strict: bool) -> Hashable:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if name.endswith("_hooks") or "_hooks_" in name or name == "forward":
            if value:
                raise _NotComparableError
            return None
        if name == "extra_repr":  # torchao gives each quantised layer one, which only prints
            return None
        if isinstance(value, _CONSTANTS):
            return str(type(value)), repr(value) if strict else None
        if strict and isinstance(value, Mapping | set | tuple | list):
            return str(type(value)), repr(value)
        return id(value) if strict or callable(value) else id(type(value))


class _NotComparableError(Exception):
    """A module holds what cannot be compared."""
