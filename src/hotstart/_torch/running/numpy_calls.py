"""Call torch's own numpy, `torch._numpy`, as nodes of Dynamo's graphs do."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx


def numpy_function(path: str, *args: Any, **kwargs: Any) -> Any:
    """Call a function by its path in `torch._numpy`, such as `linalg.norm`, on tensors."""
    return _as_tensors(_found(path)(*args, **kwargs))


def numpy_method(name: str, array: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method of an array, on tensors."""
    return _as_tensors(getattr(_as_array(array), name)(*args, **kwargs))


def numpy_operator(operator: Callable[..., Any], *args: Any) -> Any:
    """Call a function of `operator` on arrays, given tensors."""
    return _as_tensors(operator(*map(_as_array, args)))


def numpy_attribute(array: Any, name: str) -> Any:
    """Read an attribute of an array, given a tensor."""
    return _as_tensors(getattr(_as_array(array), name))


def tensor_of_array(array: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Do what `torch.tensor` does with an array, given a tensor, of which it would warn."""
    return array.detach().clone().to(**settings) if settings else array.detach().clone()


@functools.cache
def _found(path: str) -> Callable[..., Any]:
    # Modules of `torch._numpy` (2.11 to 2.15) are not imported by `import torch`.
    module, _, name = path.rpartition(".")
    home = importlib.import_module(".".join(filter(None, ("torch._numpy", module))))
    function: Callable[..., Any] = getattr(home, name)
    return function


def _as_array(value: Any) -> Any:
    return _found("ndarray")(value) if isinstance(value, torch.Tensor) else value


def _as_tensors(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(map(_as_tensors, value))
    return value.tensor if isinstance(value, _array_type()) else value


@functools.cache
def _array_type() -> Any:
    return _found("ndarray")


def numpy_call(
    target: Any, args: Sequence[Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """One of the functions above that does what a node of Dynamo's calls, with its first arguments.

    Dynamo wraps functions of numpy in classes of `torch._dynamo.utils` (2.11 to 2.15).

    Returns:
        None for what is no call of numpy, and for draws of random numbers.
    """
    first = args[0] if args else None
    held = first.meta.get("example_value") if isinstance(first, fx.Node) else None
    if target is torch.tensor and isinstance(held, torch.Tensor):
        return tensor_of_array, ()
    kind = type(target).__name__
    if getattr(target, "__module__", "") == "torch._dynamo.utils":
        if kind == "numpy_method_wrapper":
            return numpy_method, (target.method,)
        if kind == "numpy_operator_wrapper":
            return numpy_operator, (target.op,)
        if kind == "numpy_to_tensor_wrapper" and (path := _path_of(target.f)):
            return numpy_function, (path,)
        if getattr(target, "__name__", "") == "numpy_attr_wrapper":
            return numpy_attribute, ()
    return None


def _path_of(function: Any) -> str:
    for module in ("", "fft", "linalg"):
        path = ".".join(filter(None, (module, function.__name__)))
        try:
            if _found(path) is function:
                return path
        except AttributeError:
            continue
    return ""
