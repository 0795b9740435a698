"""Tensor subclasses that say what they are made of, and a module that reads one."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn


class Doubled(Tensor):
    """A subclass that holds half of what it stands for."""

    half: Tensor

    @staticmethod
    def __new__(cls, half: Tensor) -> Doubled:
        made = Tensor._make_wrapper_subclass(
            cls, half.shape, dtype=half.dtype, device=half.device, strides=half.stride()
        )
        made.half = half
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["half"], None

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Tensor], *_: Any) -> Doubled:
        return cls(inner["half"])

    def whole(self) -> Tensor:
        return self.half * 2

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].half.detach())
        if func is torch.ops.aten.t.default:
            return cls(args[0].half.t())
        if func is torch.ops.aten.split.Tensor:
            return [cls(part) for part in func(args[0].half, *args[1:])]
        if func is torch.ops.aten.add_.Tensor:
            args[0].half.add_(args[1] / 2)
            return args[0]
        if func is torch.ops.aten.neg_.default:
            args[0].half = -args[0].half
            return args[0]
        plain = pytree.tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return func(*plain[0], **plain[1])


class Scaled(Tensor):
    """Whole numbers with a scale for every row, and how much of the scale counts."""

    values: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, scale: Tensor, share: Any = 1.0) -> Scaled:
        made = Tensor._make_wrapper_subclass(
            cls, values.shape, dtype=scale.dtype, device=values.device, strides=values.stride()
        )
        made.values, made.scale, made.share = values, scale, share
        return made

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        return ["values", "scale"], {"share": self.share}

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], context: Any, *_: Any) -> Scaled:
        return Scaled(inner["values"], inner["scale"], context["share"])

    def whole(self) -> Tensor:
        return self.values * (self.scale * self.share)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].values.detach(), args[0].scale.detach(), args[0].share)
        plain = pytree.tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return func(*plain[0], **plain[1])


def scaled(rows: int, columns: int, share: Any = 1.0) -> Scaled:
    values = torch.randint(-8, 8, (rows, columns), dtype=torch.int8)
    return Scaled(values, torch.rand(rows, 1), share)


class Weighted(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Two(nn.Module):
    """Two linear maps one after the other."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first = nn.Parameter(first, requires_grad=False)
        self.second = nn.Parameter(second, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(x, self.first), self.second)
