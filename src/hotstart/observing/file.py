"""Files of calls that were seen: JSON with a version, checked when it is read.

Reading imports nothing and runs no code of a class: a class that a file names has to be imported
already, and of the kind that its place asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec.structs import replace

from hotstart.artifact.manifest import map_tree
from hotstart.artifact.values import encode
from hotstart.errors import ArtifactError, OptionsError
from hotstart.faults import path_of
from hotstart.observing.file_values import constant, imported, require_class
from hotstart.observing.seen import SeenCall, SeenTarget
from hotstart.records.classes import class_path
from hotstart.records.contract import Parameter
from hotstart.records.nested import Const, Slot, is_container, walk

VERSION = 1


class CallsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of calls.

    Attributes:
        hotstart_calls: the version of the format.
        targets: what was seen, by name.
    """

    hotstart_calls: int
    targets: dict[str, SeenTarget]


class _Version(msgspec.Struct, frozen=True):
    """The version alone, so that one that is not known is told from a file that is damaged."""

    hotstart_calls: int


def write(file: str | os.PathLike[str], seen: Mapping[str, SeenTarget]) -> None:
    """Write what was seen.

    Raises:
        OptionsError: a call passed something that a file cannot say.
        ArtifactError: the file cannot be written.
    """
    place = Path(path_of("file", file))
    try:
        made = CallsFile(VERSION, {name: _portable(target) for name, target in seen.items()})
        data = msgspec.json.format(msgspec.json.encode(made, enc_hook=_class_name), indent=1)
    except ArtifactError as error:
        raise OptionsError(f"{file}: the calls cannot be written: {error}") from error
    try:
        place.write_bytes(data + b"\n")
    except OSError as error:
        raise ArtifactError(
            f"{file}: expected a place that can be written, found: {error.strerror or error}. "
            "Give a file in a folder that exists and can be written to."
        ) from error


def read(file: str | os.PathLike[str]) -> dict[str, SeenTarget]:
    """Read what `write` wrote.

    Raises:
        ArtifactError: the file cannot be read, or is none, or its classes are not imported.
    """
    place = Path(path_of("file", file))
    try:
        data = place.read_bytes()
        version = msgspec.json.decode(data, type=_Version).hotstart_calls
        if version != VERSION:
            raise ArtifactError(
                f"{file}: expected calls of format {VERSION}, found {version}. Observe again with "
                "this version of hotstart."
            )
        found = msgspec.json.decode(data, type=CallsFile, dec_hook=_class)
        if not found.targets:
            raise ValueError("nothing that was observed")
        return {name: _checked(target) for name, target in found.targets.items()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise ArtifactError(f"{file}: cannot be read: {reason}") from error
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{file}: expected calls that hotstart.observe wrote, found: {error}. Observe again."
        ) from error


def _portable(target: SeenTarget) -> SeenTarget:
    return replace(target, calls=tuple(map(_portable_call, target.calls)))


def _portable_call(call: SeenCall) -> SeenCall:
    """A call without the arguments that it leaves out, and with constants as data."""
    passed = (
        p
        for number, p in enumerate(call.parameters)
        if number < call.by_position or not _is_left_out(p)
    )
    return replace(call, parameters=tuple(map(_portable_parameter, passed)))


def _portable_parameter(p: Parameter) -> Parameter:
    tree = map_tree(p.tree, lambda value: encode(value, _no_tensor))
    left_out = _is_left_out(p)
    default = encode(p.default, _no_tensor) if left_out else None
    return Parameter(p.name, p.kind, tree, left_out, default)


def _is_left_out(p: Parameter) -> bool:
    return p.has_default and isinstance(p.tree, Const) and p.tree.value is p.default


def _no_tensor(_: torch.Tensor) -> str:
    raise ArtifactError("an argument holds a tensor in a place that is constant")


def _class_name(value: Any) -> str:
    if isinstance(value, type):
        return class_path(value)
    raise ArtifactError(f"a {type(value).__qualname__} cannot be said as data")


def _class(kind: type, name: Any) -> Any:
    if kind is not type or not isinstance(name, str):
        raise ValueError(f"{name!r:.100} in the place of a {kind.__qualname__}")
    return imported(name)


def _checked(target: SeenTarget) -> SeenTarget:
    """A target whose records hold together, with constants as values again."""
    return replace(target, calls=tuple(map(_checked_call, target.calls)))


def _checked_call(call: SeenCall) -> SeenCall:
    parameters = tuple(
        replace(p, tree=map_tree(p.tree, constant), default=constant(p.default))
        for p in call.parameters
    )
    found = list(_slots(parameters))
    if found != list(range(len(call.tensors))) or len(call.strides) != len(call.tensors):
        raise ValueError("tensors that do not fit the arguments")
    if len({p.name for p in parameters}) < len(parameters) or not 0 < call.count < 1 << 48:
        raise ValueError("arguments of one name, or a count that no call has")
    for spec, strides in zip(call.tensors, call.strides, strict=True):
        sizes = (*spec.shape, *strides)
        rank = len(spec.shape)
        if len(strides) != rank or sorted(spec.dim_order) != list(range(rank)):
            raise ValueError(f"{spec.path}: strides or an order of another rank")
        if any(type(size) is not int or not 0 <= size < 1 << 48 for size in sizes):
            raise ValueError(f"{spec.path}: sizes {sizes}")
        _require_names(spec.dtype, spec.device)
    for kind, dtype in call.autocast:
        _require_names(dtype, kind)
    return replace(call, parameters=parameters)


def _slots(parameters: tuple[Parameter, ...]) -> Iterator[int]:
    """The slots of arguments, in order; checks the classes of containers on the way."""
    for parameter in parameters:
        for path, tree in walk(parameter.tree, parameter.name):
            if is_container(tree):
                require_class(path, tree)
            elif isinstance(tree, Slot):
                if tree.kind != "arg" or tree.expr or tree.views:
                    raise ValueError(f"{path}: a slot that is no argument")
                yield tree.index


def _require_names(dtype: str, device: str) -> None:
    if not isinstance(vars(torch).get(dtype), torch.dtype):  # getattr may import
        raise ValueError(f"no dtype {dtype!r}")
    try:
        torch.device(device)
    except RuntimeError:
        raise ValueError(f"no device {device!r}") from None
