"""Distinguish plain tensors, which are memory with strides and nothing else, from others."""

from __future__ import annotations

from typing import Literal

import torch

from hotstart._torch.graphs.symbols import is_fake
from hotstart.errors import CaptureError
from hotstart.guards.functions import class_name
from hotstart.guards.objects import Unknowable
from hotstart.guards.wrapping import wrapping_of
from hotstart.records.artifact import Wrapping

Oddity = Literal["nested", "class", "layout", "lazy"]
"""A tensor is nested; its class is not torch's own; its elements do not lie in memory by strides,
or stand for others (quantized); it is the conjugate or negative of its memory."""


def oddity(tensor: torch.Tensor) -> Oddity | None:
    """Say why a tensor is not plain; None if it is."""
    if tensor.is_nested:
        return "nested"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) and not is_fake(tensor):
        return "class"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "layout"
    return "lazy" if tensor.is_conj() or tensor.is_neg() else None


def require_plain(name: str, tensor: torch.Tensor) -> None:
    """Raise if a tensor is not plain: a program reads memory with strides, and nothing else.

    Raises:
        CaptureError: it is not; `name` says which one.
    """
    odd = oddity(tensor)
    if odd is not None:
        found, advice = _refusal(tensor, odd)
        raise CaptureError(f"{name}: got a {found}, takes a plain torch.Tensor. {advice}")


def require_comparable(name: str, tensor: torch.Tensor) -> Wrapping:
    """Describe a weight of a tensor subclass; raise if it could not be compared with another.

    Raises:
        CaptureError: its context holds an object that cannot be described; `name` says which tensor
            it is.
    """
    try:
        return wrapping_of(tensor)
    except Unknowable as error:
        raise CaptureError(
            f"{name}: got a {class_name(type(tensor))}, whose __tensor_flatten__ gives a "
            f"context that cannot be compared later: {error}. Use the plain tensors it is made of."
        ) from error


def _refusal(tensor: torch.Tensor, odd: Oddity) -> tuple[str, str]:
    """Describe a tensor that is not plain, and advise what to use in its place."""
    match odd:
        case "nested":
            return "nested tensor", (
                "Use its values and offsets, and make it in forward with "
                "torch.nested.nested_tensor_from_jagged."
            )
        case "class" if type(tensor).__qualname__ == "DTensor":
            return "DTensor", "Use the part of this rank as a plain tensor: DTensor.to_local()."
        case "class":
            return f"{type(tensor).__module__}.{type(tensor).__qualname__}", (
                "Use the plain tensors it is made of; in place of a weight, "
                "torch.export.export(model, args).run_decompositions().module() gives a module "
                "that keeps these: compile that."
            )
        case "layout":
            kind = "quantized values" if tensor.is_quantized else f"layout {tensor.layout}"
            advice = "Use .to_dense() or .dequantize(), or the tensors it is made of."
            return f"tensor of {kind}", advice
        case "lazy":
            found = "tensor that stands for the conjugate or the negative of its memory"
            return found, "Use a tensor of its own: .resolve_conj() or .resolve_neg()."
