"""What the peers that run in PyTorch have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.peers.peer import Arrays, Loaded, Place
from benchmarks.peers.subjects import Subject


def ready(call: Callable[..., Any], place: Place) -> Loaded:
    """Call something that takes tensors by position, without autograd."""
    set_up(place)
    return Loaded(lambda arrays: partial(call, *tensors(arrays)), lambda result: result.numpy())


def set_up(place: Place) -> None:
    """Set the threads of this process, and turn autograd off in it."""
    import torch

    torch.set_num_threads(place.threads)
    torch.set_grad_enabled(False)


def tensors(arrays: Arrays) -> tuple[Any, ...]:
    """Inputs as tensors, in order."""
    import torch

    return tuple(torch.from_numpy(array) for array in arrays.values())


def example(subject: Subject) -> tuple[Any, ...]:
    """Inputs of the size that is exported and compiled."""
    return tensors(subject.arrays(subject.example))


def exported(subject: Subject, module: Any) -> Any:
    """The module exported for every size that is declared."""
    import torch

    dims = {axis: torch.export.Dim(axis.name, min=axis.min, max=axis.max) for axis in subject.axes}
    shapes = {
        each.name: {at: dims[axis] for at, axis in each.axes.items()} for each in subject.inputs
    }
    return torch.export.export(module, example(subject), dynamic_shapes=shapes)
