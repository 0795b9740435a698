"""The signature of forward, and an example call bound to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hotstart._torch.running.hooks import is_compiled
from hotstart.errors import CaptureError


def bind_example(
    model: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """Bind an example call of `model` to the signature of its forward.

    Raises:
        CaptureError: the arguments do not fit, or the model is nothing whose call can be traced.
    """
    signature = _signature(model)
    try:
        bound = signature.bind(*args, **kwargs)
        _require_positional(bound)
    except TypeError as error:
        raise CaptureError(
            f"the example inputs do not fit the model's signature {signature}: {error}. "
            f"Pass what a call would pass, as args=(...) and kwargs={{...}}."
        ) from error
    return bound


def _require_positional(bound: inspect.BoundArguments) -> None:
    """Raise if a positional-only argument is missing: `bind` of 3.13.0 lets it be before **kwargs.

    Raises:
        TypeError: an argument is missing.
    """
    for name, parameter in bound.signature.parameters.items():
        needed = parameter.kind is inspect.Parameter.POSITIONAL_ONLY
        if needed and parameter.default is inspect.Parameter.empty and name not in bound.arguments:
            raise TypeError(f"missing a required argument: {name!r}")


def _signature(model: Callable[..., Any]) -> inspect.Signature:
    if is_compiled(model):
        raise CaptureError(
            "model: got what torch.compile returned, takes what it was given. Pass the module or "
            "function itself; a compiled module has it as _orig_mod."
        )
    called = model.forward if isinstance(model, torch.nn.Module) else model
    if inspect.isfunction(called) or inspect.ismethod(called):
        _require_plain(called)
        return inspect.signature(called)
    if called is not model:
        if isinstance(called, torch.nn.Module):
            return inspect.signature(called.forward)
        raise CaptureError(
            f"model.forward: got {type(called).__qualname__}, takes a function or a method. Wrap "
            "the model in a module whose forward calls it, or take out what replaced its forward, "
            "such as hooks of accelerate, with remove_hook_from_module(model, recurse=True)."
        )
    raise CaptureError(
        f"model: got a {type(model).__qualname__}, takes a torch.nn.Module, a function or a "
        "method. Pass a method of the object, or a function that calls it."
    )


def _require_plain(function: Callable[..., Any]) -> None:
    """Raise if a call gives a generator or a coroutine, which runs later."""
    plain = inspect.unwrap(function)
    later = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(kind(plain) for kind in later):
        raise CaptureError(
            f"{plain.__qualname__}: got a generator or coroutine function, takes one that returns "
            "its results. Return a tuple or list, or compile what it calls."
        )
