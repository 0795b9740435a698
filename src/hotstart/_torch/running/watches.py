"""Notice what was replaced in place: tensors, their contents, entries of mappings."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch


class TensorWatch:
    """Notices that a tensor's dtype, device, shape, strides or memory was replaced in place.

    `TensorGuards` is the C++ check that Dynamo's own guards use; it needs no Dynamo. What it
    compares with depends on the inference mode it is made in.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        from torch._C._dynamo.guards import TensorGuards

        self._tensors = tuple(tensors)
        self._addresses = list(map(torch.Tensor.data_ptr, tensors))
        self._checks: list[Callable[..., bool]] = []
        for inference in (False, True) if tensors else ():
            with torch.inference_mode(inference):
                guards = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
                self._checks.append(guards.check)

    def unchanged(self) -> bool:
        """Tell whether the tensors are as they were."""
        tensors = self._tensors
        if list(map(torch.Tensor.data_ptr, tensors)) != self._addresses:
            return False
        return not tensors or any(check(*tensors) for check in self._checks)


class VersionWatch:
    """Notices that tensors were written to in place.

    Autograd counts that in `_version`. It does not count what is written through `.data`, through
    NumPy or by other processes, nor what is written to a tensor made in inference mode, which has
    no count.

    Attributes:
        tensors: those that are watched.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self.tensors = tuple(tensor for tensor in tensors if not tensor.is_inference())
        self._version = operator.attrgetter("_version")
        self._versions = list(map(self._version, self.tensors))

    def unchanged(self) -> bool:
        """Tell whether nothing was written to any of the tensors."""
        return list(map(self._version, self.tensors)) == self._versions


def attributes_are_counted() -> bool:
    """Tell whether setting an attribute of an object counts as a change of its dict.

    It does not in Python 3.13.0, whose watchers of dicts are told of no attribute that is kept in
    the object itself.
    """
    from torch._C._dynamo.guards import dict_version

    probe = _Probe()
    held = vars(probe)
    before = dict_version(held)
    probe.value = 1
    return bool(dict_version(held) != before)


class _Probe:
    """An object with an attribute."""

    def __init__(self) -> None:
        self.value = 0


def watch_mappings(mappings: Sequence[dict[Any, Any]]) -> MappingWatch | ContentsWatch:
    """Watch dicts, which may be those of objects' attributes."""
    return MappingWatch(mappings) if attributes_are_counted() else ContentsWatch(mappings)


class ContentsWatch:
    """Notices that dicts changed, by the identity of every value."""

    def __init__(self, mappings: Sequence[dict[Any, Any]]) -> None:
        self._before = [(mapping, [*mapping], [*mapping.values()]) for mapping in mappings]

    def unchanged(self) -> bool:
        """Tell whether nothing was set in or removed from any of the dicts."""
        return not any(_differs(*each) for each in self._before)

    def changed(self) -> list[dict[Any, Any]]:
        """The dicts in which something was set or removed."""
        return [each[0] for each in self._before if _differs(*each)]


def _differs(mapping: dict[Any, Any], keys: list[Any], values: list[Any]) -> bool:
    same = len(mapping) == len(keys) and all(map(operator.is_, mapping.values(), values))
    return not same or [*mapping] != keys


class MappingWatch:
    """Notices that dicts changed.

    CPython counts the changes of every dict up to 3.11; from 3.12 on torch counts those of the
    dicts it is asked about. Comparing numbers touches less memory than comparing contents.
    """

    def __init__(self, mappings: Sequence[dict[Any, Any]]) -> None:
        from torch._C._dynamo.guards import dict_version

        self._version = dict_version
        self._mappings = tuple(mappings)
        self._versions = list(map(dict_version, mappings))

    def unchanged(self) -> bool:
        """Tell whether nothing was set in or removed from any of the dicts."""
        return list(map(self._version, self._mappings)) == self._versions

    def changed(self) -> list[dict[Any, Any]]:
        """The dicts in which something was set or removed."""
        versions = zip(self._mappings, self._versions, strict=True)
        return [mapping for mapping, version in versions if self._version(mapping) != version]
